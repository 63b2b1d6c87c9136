"""Shards are plain HDF5: h5py reads from them the documents that `muster prepare` was given.

    python3 tests/data/h5py_reads.py build/release/muster
"""

import json
import pathlib
import subprocess
import sys
import tempfile

import h5py
import numpy

END = 256
MUSTER = sys.argv[1]

documents = [f"document {i}: " + "fa\u00e7ade \u2603 " * (i * 7 % 50) for i in range(300)]

with tempfile.TemporaryDirectory() as folder:
    text = pathlib.Path(folder, "text.jsonl")
    text.write_text("".join(json.dumps({"text": d}) + "\n" for d in documents), encoding="utf-8")
    output = pathlib.Path(folder, "dataset")
    subprocess.run(
        [MUSTER, "prepare", text, "--output", output, "--tokenizer", "bytes", "--validation", "0.2", "--shard-tokens", "20000"],
        check=True,
    )
    manifest = json.loads((output / "dataset.json").read_text())
    read = {}
    for split, contents in manifest["splits"].items():
        read[split] = []
        for entry in contents["shards"]:
            with h5py.File(output / entry["file"], "r") as shard:
                assert shard.attrs["format_version"] == 2
                assert shard.attrs["vocabulary"] == manifest["vocabulary"] == 257
                tokenizer_hash = shard.attrs["tokenizer_hash"]
                tokenizer_hash = tokenizer_hash.decode() if isinstance(tokenizer_hash, bytes) else tokenizer_hash
                assert tokenizer_hash == manifest["tokenizer_hash"], tokenizer_hash
                tokens, ends = shard["tokens"], shard["document_ends"]
                assert tokens.dtype == numpy.uint16 and tokens.chunks is None and tokens.shape == (entry["tokens"],)
                assert ends.dtype == numpy.int64 and ends.shape == (entry["documents"],) and ends[-1] == len(tokens)
                assert shard["token_hashes"].dtype == shard["document_end_hashes"].dtype == numpy.uint32
                assert shard["token_hashes"].shape == (-(-len(tokens) // 1024),)
                assert shard["document_end_hashes"].shape == (-(-len(ends) // 32),)
                begin = 0
                for end in ends[:]:
                    document = tokens[begin:end]
                    assert document[-1] == END
                    read[split].append(document[:-1].astype(numpy.uint8).tobytes().decode("utf-8"))
                    begin = end
    assert len(manifest["splits"]["train"]["shards"]) > 1, "the test wants several shards"
    assert read["validation"], "the test wants documents in validation"
    # Each document once, in its order within its split.
    held_out = set(read["validation"])
    assert read["train"] == [d for d in documents if d not in held_out]
    assert read["validation"] == [d for d in documents if d in held_out]
    print(f"h5py reads {len(read['train'])} + {len(read['validation'])} documents as they were given")
