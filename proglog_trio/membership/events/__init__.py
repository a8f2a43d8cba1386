"""User events and queries, as the users of a membership meet them: subscribed to, sent, asked, answered, coalesced."""
