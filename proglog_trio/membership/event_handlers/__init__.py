"""Event handlers: what is run when something happens in the cluster, as Serf's agents have them.

```
event_handlers   gives each event to the handlers that want it, within bounds (event_handlers.py)
scripts          what a script sees of an event, and how it is run (script_input.py, script_run.py)
filters          which events a handler wants (event_filter.py)
```
"""
