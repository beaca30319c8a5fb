"""The stage `collect`: answers become votes.

- `stage`: from the settings to votes/ and rejects/.
- `sources`: which format a file is in; `json_items`: the items of a long JSON document.
- `answers`: one answer, whatever the tool; `label_studio`, `cvat`, `tables`: answers of each tool's
  exports and API; `times`: how tools write times.
- `polling`: what has changed on a server; `state`: the answers of the last poll.
- `worker_names`: names, or hashes of them.
- `judge`: an answer to a vote or a reject; `reasons`: why an answer is no vote.
"""
