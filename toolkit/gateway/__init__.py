"""The gateway: verifies each call's key, enforces its limits, forwards, meters and charges it.

| file | holds |
|---|---|
| `app` | the Starlette application: its parts, its start and its end |
| `routes` | every path that is answered |
| `arrival` | what is done with every request before its route is looked up |
| `endpoint`, `call_endpoint`, `model_listing` | what answers a request: what both kinds share, calls, listings |
| `error_handlers`, `unknown_paths` | what callers are told of refusals, faults of ours, and paths that are not ours |
| `caller` | where the caller's credential is |
| `body_reading` | the body, read as it comes |
| `bodies` | how much a key may send, and what becomes of large bodies |
| `readers` | the processes that read what is large |
| `intake` | what upstreams answer, taken in and read |
| `failures` | what a caller is told when an admitted call has failed |
| `turns` | who gets what there is little of |
| `blocks` | bytes that came in pieces |
| `key_cache` | keys, models and prices in memory, and the proof that they are current |
| `lookups` | secrets looked up in the key store, those that wait together in one reading |
| `refusal_log` | which refusals become rows, and the count of the rest |
| `request` | a request to call a model |
| `call` | judging a call, holding, settling |
| `forwarder` | forwarding an admitted call and passing its answer on |
| `interrupted_calls` | what a call costs that did not come to its end |
| `fault` | what an upstream's error becomes for the caller |
| `upstream_pool`, `http_client` | connections to upstreams, and the HTTP that they speak |
| `responses` | what is sent back |
| `heartbeat` | the heartbeat of the gateway's lease |
| `readiness` | whether calls can be admitted |
| `server` | uvicorn, with our connections |
| `connection` | HTTP/1.1 as callers speak it, read within bounds |
| `flow` | how much of what a caller sends is taken at a time |
| `heads` | what of a request's head could be read in two ways |
| `door` | how many connections are borne, and for how long, from those who have shown no key |
"""
