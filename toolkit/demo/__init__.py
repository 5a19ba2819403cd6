"""A provider to try Keydesk with: a local upstream that needs no account and costs nothing."""
