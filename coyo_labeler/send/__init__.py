"""The stage `send`: questions go to an annotation tool.

- `stage`: from the settings to the record of what was sent; `record`: its rows.
- `groups`: questions that share a project; `wording`: questions and classes in words.
- `images`: where the tool finds the images; `reasons`: why a question is not sent.
- `label_studio_tasks`: Label Studio's form of a question; `label_studio`: to its server.
- `cvat_tasks`: CVAT's form; `cvat`: to its server, or as bodies of requests.
- `files`: Label Studio's JSON, MTurk's CSV with `mturk_template.html`, plain CSV.
"""
