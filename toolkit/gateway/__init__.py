"""The gateway: verifies each call's key, enforces its limits, forwards, meters and charges it.

Begin with `app`, then `routes` and `call_endpoint`: a call's way stands there in a dozen lines. It imports neither
`ledger` nor `reports`, and nothing of the front ends: what a call needs it reads from the key store.

What callers ask for:

| file | holds |
|---|---|
| `app` | the Starlette application: its parts, its start and its end |
| `routes` | every path that is answered |
| `arrival` | what is done with every request before its route is looked up |
| `endpoint`, `call_endpoint`, `model_listing` | what answers a request: what both kinds share, calls, listings |
| `error_handlers`, `unknown_paths` | what is told of refusals, of faults of ours, and of paths that are not ours |
| `responses` | answers and refusals as they are sent |

Who asks, and whether the call may be made:

| file | holds |
|---|---|
| `credentials` | where the caller's secret is |
| `key_cache` | keys, models and prices in memory, and the proof that they are current |
| `lookups` | secrets looked up in the key store, those that wait together in one reading |
| `rejected_secrets` | the 401 of secrets that admit nothing, such as rotated ones |
| `request` | a request to call a model |
| `body_limits`, `body_reading`, `body_decoding` | the largest body, and the body read as it comes, compressed or not |
| `large_bodies`, `byte_blocks`, `fair_turns` | where large bodies are kept, in pieces, and whose turn it is |
| `reader_pool`, `reader_process` | the processes that read what is large, and what they do |
| `admission`, `call_price` | judging a call; its model, price and bound |
| `call_ways` | which of several upstreams serves a call, which may after that, and which have just failed |
| `field_policy` | what becomes of fields that nobody knows |
| `refusal_log` | which refusals become rows, and the count of the rest |
| `lifecycle`, `heartbeat` | calls under way, their holds and settling; the lease that they need |
| `self_report` | what a gateway tells of itself with each heartbeat: what it has set aside, which credentials it has |
| `store_clock` | how far the key store's clock is ahead, by which keys expire and months end |
| `readiness` | whether calls can be admitted |

What providers are asked:

| file | holds |
|---|---|
| `forwarder`, `stream_forwarder` | forwarding an admitted call and passing its answer on, whole or as a stream |
| `settled_call`, `answered_call` | what an admitted call is charged; what its caller is told |
| `upstream_request` | what is sent to the provider |
| `upstream_pool` | our credentials for providers, and the way to them |
| `token_commands`, `command_run` | tokens that commands print, kept for their time; a run of one |
| `upstream_exchange`, `upstream_retry` | a request and its answer, with time limits; the retry on a dead connection |
| `connection_pool`, `upstream_connection`, `request_writing` | kept connections, and the HTTP that is spoken on them |
| `upstream_testing`, `upstream_probe` | tests of upstreams that operators ask for, and what they ask |
| `added_fields`, `field_errors`, `bound_errors` | fields of ours that a provider refuses, and how it says so |
| `answer_reading` | what providers answer, taken in and read |
| `interrupted_calls` | what a call costs that did not come to its end, such as a broken stream |
| `upstream_errors`, `call_failures` | what a provider's error becomes for the caller, and what a failed call is told |

The server:

| file | holds |
|---|---|
| `memory` | the process's memory, and when the system gets it back |
| `server`, `listening`, `processes` | uvicorn with our connections, its ports, its worker processes |
| `server_connection`, `head_parsing`, `flow_control` | HTTP/1.1 as callers speak it, read within bounds |
| `timed_connection`, `unframed_cycle` | a caller's connection, its time and its end; answers to HTTP/1.0 |
| `connection_limits` | how many connections are borne, and for how long, from those who have shown no key |
"""
