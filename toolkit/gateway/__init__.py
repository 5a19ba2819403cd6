"""The gateway: verifies each call's key, enforces its limits, forwards, meters and charges it.

| file | holds |
|---|---|
| `paths` | which dialect and endpoint a path means |
| `caller` | where the caller's credential is |
| `bodies` | how much a key may send, and what becomes of large bodies |
| `readers` | the processes that read what is large |
| `intake` | what upstreams answer, taken in and read |
| `failures` | what a caller is told when an admitted call has failed |
| `turns` | who gets what there is little of |
| `blocks` | bytes that came in pieces |
| `key_cache` | keys, models and prices in memory, and the proof that they are current |
| `refusal_log` | which refusals become rows, and the count of the rest |
| `call` | judging a call, holding, settling |
| `forwarder` | forwarding an admitted call and passing its answer on |
| `fault` | what an upstream's error becomes for the caller |
| `upstream_pool`, `http_client` | connections to upstreams, and the HTTP that they speak |
| `responses` | what is sent back |
| `heartbeat` | the heartbeat of the gateway's lease |
| `readiness` | whether calls can be admitted |
| `app` | the Starlette application |
| `server` | uvicorn, with our connections |
| `connection` | HTTP/1.1 as callers speak it, read within bounds |
| `flow` | how much of what a caller sends is taken at a time |
| `heads` | what of a request's head could be read in two ways |
| `door` | how many connections are borne, and for how long, from those who have shown no key |
"""
