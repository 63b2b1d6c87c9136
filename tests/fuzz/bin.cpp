// Tokens made elsewhere: plain, and behind the headers of llm.c and LLM.Q.
#include "tests/fuzz/prepared.hpp"
#include "tests/fuzz/target.hpp"

void muster::fuzz::read(std::string_view bytes) {
  const std::string path = write("input.bin", bytes);
  for (const char* type : {"", "u16", "u32"})
    read_or_refuse([&] { prepare_file(path, *make_id_tokenizer(70000, 9), fnv1a(bytes), type); });
}
