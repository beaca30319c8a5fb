"""What send and collect share: questions, the servers of annotation tools, and what was sent.

- `questions`: reads what select wrote, and finds the question of an answer.
- `records`: what send leaves for collect.
- `server`: HTTP with credentials, repetitions and errors that help; `label_studio_api`, `cvat_api`:
  the calls of each tool.
"""
