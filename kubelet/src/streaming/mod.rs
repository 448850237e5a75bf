//! Exec, attach and port-forward: passes a client's upgraded stream on to the runtime's streaming URL.
