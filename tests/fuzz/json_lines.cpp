// Text and JSON lines, known by their name or their content.
#include "tests/fuzz/prepared.hpp"
#include "tests/fuzz/target.hpp"

void muster::fuzz::read(std::string_view bytes) {
  for (const char* name : {"input.jsonl", "input.json", "input", "input.txt"})
    read_or_refuse([&] { prepare_file(write(name, bytes), *make_tokenizer("bytes"), fnv1a(bytes)); });
}
