"""Pull replication: every node pulls what the others wrote. The logic here knows frames and positions, not gRPC.

Theory of operation
===================

What a record is called never changes: (origin, sequence), and a frame is the same bytes on every node. So replication
has to find out just two things, over and over: what is there, and where to get it. Nothing else is agreed upon.

The parts
---------

A Replica wires them; each knows those below it only. Everything but the last two lines does no I/O and starts no task.

```
PullSession, SourceSession   this node's ends of the pull streams: messages in, messages out (session.py: what both do)
Scheduler                    makes decisions when they are due, in lived time, and carries them out
PullPlan                     decides from which peer each origin is pulled, and what is passed
MissingReview                what this log misses at present: what is to be fetched, what is given up
OriginRetirement             origins of which no log has anything left
Holdings                     who has what on disk: learned, told on, counted for acknowledgements
OpenStreams, Advertiser      the open ends, and what each of their other ends was not told yet
peers/                       what is known of others: PeerTable of PeerViews, Directories, ProgressTracker, clocks
LocalNode                    this node: log, hello, clock, counters
Replicator, PeerTask,        the tasks: a nursery with one task a peer, and those that do what takes time or a disk
Repairer                     (ReplicaHost says what a replica leaves to them)
FrameSource                  reads frames for one puller, in worker threads
```

States
------

*A peer*: joined → connected (it has said who it is) → told (it has said all that it has) → disconnected → connected …
until it has left. Of one that is connected and has not told, nothing follows from what it has not said; of one that
is disconnected, only who it is and when it was last there.

*An origin, as it is pulled*: unassigned, or assigned to one connected peer. A decision is made anew whenever something
of it has changed (it is touched), or at its deadline. An assignment ends when the stream ends, when the source says
that it cannot go on (Ended), when its frames differ from this log's (diverged), or when the plan decides otherwise.

*A range of sequences, in this log*: to come (at or above next), held, missing, gap, retired; or damaged, as the log
knows. It becomes missing or a gap when next passes it (Applier.mark, by a decision of the plan); missing becomes held
or a gap by a repair (MissingReview decides, Repairer carries it out, settled tells). Gap and retired are for ever.

*A directory*: waited for, or not: its node was told to leave when it had failed, or the membership has forgotten it.

Who may change what
-------------------

Everything runs in the host's thread, but for FrameSource, which goes through readers that the log gives out for that.
Sessions may be called from another event loop in that thread; no method of the parts awaits, so each is one step to all
others.

- The views in PeerTable change by PullPlan's methods only, which touch what depends on them.
- Progress (acknowledgements) and PeerViews (pulls) are two opinions on purpose: the first keeps what was once on disk,
  until a later opening of the directory says less; the second is what a stream says now, and nothing without a stream.
- The log changes by Applier, for pulls, and by a repair. What is durable comes back by the log's own notice.
- `hello.opened` is raised by Replica.reopened only, after the disk has it.
- Errors end what they concern: PeerLied and PullRefused a stream, what is unforeseen one session, origin or decision.

What holds always
-----------------

- A frame is appended only if it was asked for, is exactly its origin's next, and follows the last header by its CRC.
  The one exception is what a decision allows to be passed, and then the marker is appended first.
- This node's own origin is never pulled.
- Each origin has at most one source. Frames of others may still arrive; they are dropped or ignored, and never harm.
- Nothing that a connected peer says that it has is given up. A range is a gap only if no directory that is waited for
  may have it, or a peer's log already knows that it is one.
- What is passed is not held: gaps and what is missing count for nothing in acknowledgements and lags.
- The end of an origin is on disk before the origin is forgotten.
- All that peers make a node keep is bounded: origins (MAX_ORIGINS of each), holders, directories, copies; so is each
  message (ENTRIES_AT_ONCE), and thus the time that it holds the loop.
"""
