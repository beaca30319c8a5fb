"""The Arrow schema of every table that is written or passed between stages, once.

Spark schemas are made from these (`spark_tables.spark_schema`). Key-value metadata is not part of
them. What never leaves one Spark job (receipts of tasks, packed sums) has its schema there.
"""

import pyarrow as pa

#: Rows that can be in the catalog: one per image to fetch; extra columns may follow.
CATALOG = pa.schema(
    [
        pa.field("id", pa.int64(), nullable=False),
        pa.field("url", pa.string(), nullable=False),
        pa.field("imagehash", pa.string()),  # 16 hexadecimal digits
        pa.field("width", pa.int32()),
        pa.field("height", pa.int32()),
        pa.field("shard", pa.int32(), nullable=False),
    ]
)

#: Where ingest dropped twins of an image, their URLs, for fetch to try when the image's own fails.
CATALOG_OPTIONAL = pa.schema([pa.field("fallback_urls", pa.list_(pa.string()))])

#: Source rows that did not reach the catalog, with the one reason each.
CATALOG_REJECTS = pa.schema(
    [
        pa.field("id", pa.int64()),
        pa.field("url", pa.string()),
        pa.field("reason", pa.string(), nullable=False),
        pa.field("detail", pa.string()),
    ]
)

#: Which row stands for a dropped twin. distance: Hamming distance of the two pHashes, in bits.
DUPLICATES = pa.schema(
    [
        pa.field("id", pa.int64(), nullable=False),
        pa.field("kept_id", pa.int64(), nullable=False),
        pa.field("distance", pa.int32(), nullable=False),
    ]
)

#: `{shard:05d}.parquet` beside `{shard:05d}.tar`: one row for every catalog row of the shard.
IMAGES = pa.schema(
    [
        pa.field("key", pa.string(), nullable=False),
        pa.field("id", pa.int64(), nullable=False),
        pa.field("url", pa.string()),
        pa.field("status", pa.string(), nullable=False),
        pa.field("error", pa.string()),
        pa.field("http_status", pa.int32()),
        pa.field("imagehash", pa.string()),
        pa.field("actual_imagehash", pa.string()),
        pa.field("hash_distance", pa.int32()),
        pa.field("sha256", pa.string()),
        pa.field("width", pa.int32()),
        pa.field("height", pa.int32()),
        pa.field("original_width", pa.int32()),
        pa.field("original_height", pa.int32()),
        pa.field("bytes", pa.int64()),
        pa.field("seconds", pa.float32()),
    ]
)

#: Which images lie in which tar, for export. tar: its number among the tars by name.
IMAGE_INDEX = pa.schema(
    [pa.field("tar", pa.int32()), pa.field("key", pa.string()), pa.field("id", pa.int64())]
)

#: `status` of an image that is in the tar, in this table and in img2dataset's.
SUCCESS = "success"

#: Exactly COYO-Labeled-300M: by probability descending, ties by label ascending.
BELIEFS = pa.schema(
    [
        pa.field("id", pa.int64()),
        pa.field("url", pa.string()),
        pa.field("imagehash", pa.string()),
        pa.field("labels", pa.list_(pa.int32())),
        pa.field("label_probs", pa.list_(pa.float32())),
        pa.field("width", pa.int32()),
        pa.field("height", pa.int32()),
    ]
)

#: The columns of beliefs that nothing is computed from. Beliefs of other origin may lack them: they
#: are null then.
CARRIED = ("url", "imagehash", "width", "height")

#: Images of a tar that have no belief.
LABEL_FAILURES = pa.schema(
    [
        pa.field("id", pa.int64()),
        pa.field("key", pa.string(), nullable=False),
        pa.field("reason", pa.string(), nullable=False),
        pa.field("detail", pa.string()),
    ]
)

#: Rows of labels that are not in an exported copy.
EXPORT_REJECTS = pa.schema(
    [
        pa.field("id", pa.int64()),
        pa.field("reason", pa.string(), nullable=False),
        pa.field("detail", pa.string()),
    ]
)

#: Human votes. Without `response` a vote is a choice; with one (yes, no, unsure) a verification.
VOTES = pa.schema(
    [
        pa.field("image_id", pa.int64()),
        pa.field("worker_id", pa.string()),
        pa.field("label", pa.int32()),
    ]
)
VOTES_OPTIONAL = pa.schema(
    [pa.field("response", pa.string()), pa.field("timestamp", pa.timestamp("us", tz="UTC"))]
)
#: Further columns of collected votes that merge reads. candidates: the set of classes that a
#: verification without a label is about. inclusion_probability: that the image was asked about.
VOTES_COLLECTED_OPTIONAL = pa.schema(
    [
        pa.field("candidates", pa.list_(pa.int32())),
        pa.field("inclusion_probability", pa.float64()),
    ]
)

#: What select asks. question_id: "{round}:{image_id}", for a verification with ":{label}" appended.
#: kind: choice or verify. label: the class that a verification asks about. candidates: the classes
#: that a choice offers, or the set of classes that a verification without `label` asks about.
#: candidate_probs: their probabilities when the question was made. purpose: uncertain, audit, gold
#: or repeat. inclusion_probability: that the image was asked about at all in this round. overlap:
#: answers wanted, each from another worker. worker_id: who is to answer, where that was assigned.
QUESTIONS = pa.schema(
    [
        pa.field("question_id", pa.string(), nullable=False),
        pa.field("image_id", pa.int64(), nullable=False),
        pa.field("key", pa.string()),
        pa.field("url", pa.string()),
        pa.field("kind", pa.string(), nullable=False),
        pa.field("label", pa.int32()),
        pa.field("candidates", pa.list_(pa.int32())),
        pa.field("candidate_probs", pa.list_(pa.float32())),
        pa.field("purpose", pa.string(), nullable=False),
        pa.field("inclusion_probability", pa.float64(), nullable=False),
        pa.field("overlap", pa.int32(), nullable=False),
        pa.field("risk", pa.float32()),
        pa.field("worker_id", pa.string()),
    ]
)

#: The true classes of the gold questions; it stays with us and is never sent.
GOLD_KEY = pa.schema(
    [
        pa.field("question_id", pa.string(), nullable=False),
        pa.field("image_id", pa.int64(), nullable=False),
        pa.field("label", pa.int32(), nullable=False),
    ]
)

#: Answers as collect writes them: votes that merge takes, and where each came from. response: null
#: (the worker chose `label`), yes, no, unsure, or none: "none of `candidates`". label is null for
#: none and for a verification of the set `candidates`. seconds: spent on the answer.
COLLECTED_VOTES = pa.schema(
    [
        *VOTES,
        *VOTES_OPTIONAL,
        pa.field("question_id", pa.string()),
        pa.field("candidates", pa.list_(pa.int32())),
        pa.field("inclusion_probability", pa.float64()),
        pa.field("purpose", pa.string()),
        pa.field("seconds", pa.float32()),
        pa.field("source", pa.string()),
    ]
)

#: Answers that are no votes, with the one reason each.
COLLECT_REJECTS = pa.schema(
    [
        pa.field("question_id", pa.string()),
        pa.field("image_id", pa.int64()),
        pa.field("worker_id", pa.string()),
        pa.field("answer", pa.string()),
        pa.field("timestamp", pa.timestamp("us", tz="UTC")),
        pa.field("source", pa.string()),
        pa.field("reason", pa.string(), nullable=False),
        pa.field("detail", pa.string()),
    ]
)

#: What send put where: one row per question, and per worker where one was assigned. project: Label
#: Studio's number of the project, the name of CVAT's task, or the file that holds the task. task:
#: the number of the task (Label Studio) or of the frame (CVAT); null in files. image: what the tool
#: shows, without the signature of a signed URL.
SENT = pa.schema(
    [
        pa.field("question_id", pa.string(), nullable=False),
        pa.field("image_id", pa.int64(), nullable=False),
        pa.field("worker_id", pa.string()),
        pa.field("project", pa.string(), nullable=False),
        pa.field("task", pa.int64()),
        pa.field("image", pa.string(), nullable=False),
    ]
)

#: Questions that were not sent, with the one reason each.
SEND_REJECTS = pa.schema(
    [
        pa.field("question_id", pa.string()),
        pa.field("image_id", pa.int64()),
        pa.field("reason", pa.string(), nullable=False),
        pa.field("detail", pa.string()),
    ]
)

#: Answers as a tool has them, before they are matched with questions; collect keeps those of a
#: server, so that it asks only for what has changed. answer_id: what the tool calls the answer; of
#: several with one, the last updated counts. asks: the class that the question is about, where the
#: tool says so. image: name of the image's file, where there is no number. place: `project/task` of
#: SENT, where the tool names no question. group: the tool's task, all of whose answers are read at
#: once. worker_number: the tool's number of a worker, where it has one. status: why the answer is
#: no vote, where the tool's own data say so (a reason of collect).
ANSWERS = pa.schema(
    [
        pa.field("answer_id", pa.string(), nullable=False),
        pa.field("group", pa.string()),
        pa.field("question_id", pa.string()),
        pa.field("image_id", pa.int64()),
        pa.field("image", pa.string()),
        pa.field("place", pa.string()),
        pa.field("asks", pa.int32()),
        pa.field("worker", pa.string()),
        pa.field("worker_number", pa.int64()),
        pa.field("value", pa.string()),
        pa.field("created", pa.int64()),  # microseconds since 1970, UTC
        pa.field("updated", pa.int64()),  # microseconds since 1970, UTC
        pa.field("seconds", pa.float32()),
        pa.field("source", pa.string(), nullable=False),
        pa.field("status", pa.string()),
        pa.field("detail", pa.string()),
    ]
)

#: A vote that can be used, on its way from votes to merge. label: −1 where the vote is about a set
#: of classes, candidates, which is null otherwise. offered: to a choice, the number of classes; 0
#: where it is not known. response: of em.responses.Response. timestamp:
#: microseconds since 1970, or null. inclusion_probability: null where it is not known. file and
#: row: where it came from, row from 1.
VOTES_CHECKED = pa.schema(
    [
        pa.field("image_id", pa.int64()),
        pa.field("worker_id", pa.string()),
        pa.field("label", pa.int32()),
        pa.field("response", pa.int8()),
        pa.field("candidates", pa.list_(pa.int32())),
        pa.field("offered", pa.int32()),
        pa.field("timestamp", pa.int64()),
        pa.field("inclusion_probability", pa.float64()),
        pa.field("file", pa.int32()),
        pa.field("row", pa.int64()),
    ]
)

#: Votes that were set aside. `row` is the 1-based row of the input.
VOTES_REJECTS = pa.schema(
    [
        pa.field("row", pa.int64()),
        pa.field("image_id", pa.string()),
        pa.field("worker_id", pa.string()),
        pa.field("label", pa.string()),
        pa.field("response", pa.string()),
        pa.field("reason", pa.string(), nullable=False),
        pa.field("detail", pa.string()),
    ]
)

#: The true class of some images.
GOLD = pa.schema([pa.field("image_id", pa.int64()), pa.field("label", pa.int32())])

#: Groups of images, for report; an image may be in several.
SLICES = pa.schema([pa.field("image_id", pa.int64()), pa.field("slice", pa.string())])

#: Beliefs after the votes. risk is 1 − the top posterior; entropy is in nats.
POSTERIOR = pa.schema(
    [
        *BELIEFS,
        pa.field("n_votes", pa.int32()),
        pa.field("risk", pa.float32()),
        pa.field("entropy", pa.float32()),
    ]
)

#: One row per worker; accuracy_low and accuracy_high bound the central 90 % interval.
WORKERS = pa.schema(
    [
        pa.field("worker_id", pa.string(), nullable=False),
        pa.field("n_votes", pa.int64(), nullable=False),
        pa.field("accuracy", pa.float64()),
        pa.field("accuracy_low", pa.float64()),
        pa.field("accuracy_high", pa.float64()),
        pa.field("log_odds_vs_random", pa.float64()),
    ]
)

#: The votes of each worker: choices; answers, and how many of them were unsure; votes that could be
#: compared with a belief, and how many of them agreed with it.
TALLY = pa.schema(
    [
        pa.field("worker_id", pa.string(), nullable=False),
        pa.field("choices", pa.int64(), nullable=False),
        pa.field("answers", pa.int64(), nullable=False),
        pa.field("unsure", pa.int64(), nullable=False),
        pa.field("compared", pa.int64(), nullable=False),
        pa.field("agreeing", pa.int64(), nullable=False),
    ]
)

#: Expected counts that are not in CONFUSIONS. kind: choice (one-coin workers) or answer. true:
#: whether the answer to the question was yes in truth; null for one-coin workers. outcome: yes, no,
#: unsure as 0, 1, 2 for an answer; wrong, right, unsure as 0, 1, 2 for one-coin workers.
SKILLS = pa.schema(
    [
        pa.field("worker_id", pa.string(), nullable=False),
        pa.field("kind", pa.string(), nullable=False),
        pa.field("true", pa.bool_()),
        pa.field("outcome", pa.int32(), nullable=False),
        pa.field("count", pa.float64(), nullable=False),
    ]
)

#: The estimated share of each class among images without a belief, and how many images were
#: expected to have it.
CLASSES = pa.schema(
    [
        pa.field("label", pa.int32(), nullable=False),
        pa.field("share", pa.float64(), nullable=False),
        pa.field("images", pa.float64(), nullable=False),
    ]
)

#: Expected confusion counts, only those above zero.
CONFUSIONS = pa.schema(
    [
        pa.field("worker_id", pa.string(), nullable=False),
        pa.field("true_label", pa.int32(), nullable=False),
        pa.field("voted_label", pa.int32(), nullable=False),
        pa.field("count", pa.float64(), nullable=False),
    ]
)
