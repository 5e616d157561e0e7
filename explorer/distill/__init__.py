"""How a student learns from its teacher: text, targets, losses and the training loop.

checkpoint.py           a training's weights, optimizer state and progress on disk
corpus.py               the text: read it, tokenise it, pack it into blocks
cpu_tuning.py           two settings that make a step on a CPU faster
data/                   the starter corpus and its recipe
distributed.py          the processes of one launch: rank, world size, collectives
endpoint_topk.py        targets from the log-probabilities that a server names
heldout.py              how close a student is on the held-out blocks
losses.py               divergences, cross-entropy and hidden-state losses, one number a position
packed_topk.py          how a position of the targets is packed into bytes
prefetch.py             a thread that reads the next pass's text and targets
sampled_vocab.py        a block's part of the vocabulary: the tokens that matter and a sample
schedule.py             steps, blocks and learning rates of a budget
sharding.py             a student whose layers are sharded over the ranks
student_layers.py       the student's layers in a step: as they are, or compiled
synthesise.py           a chat teacher writes its own distillation text
teacher_cache.py        the teacher's distributions, computed once for all students
teacher_cache_files.py  the caches on disk: list, check, remove
teacher_cache_index.py  which shard holds which blocks, with checksums
teacher_signal.py       what a teacher says of a batch: cached, live or nothing
token_file.py           a corpus's tokens in a file, made once for all runs
train.py                the loop, a step and its chunked backward pass
train_state.py          the student and its optimizer, as a rank holds them
"""
