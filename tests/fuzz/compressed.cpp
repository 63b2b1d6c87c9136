// Text and JSON lines that gzip or Zstandard has compressed.
#include "tests/fuzz/prepared.hpp"
#include "tests/fuzz/target.hpp"

void muster::fuzz::read(std::string_view bytes) {
  for (const char* name : {"input.jsonl.gz", "input.txt.zst"})
    read_or_refuse([&] { prepare_file(write(name, bytes), *make_tokenizer("bytes"), 0); });
}
