// The index of Megatron, after a byte that tells how long its .bin is.
#include <algorithm>

#include "tests/fuzz/prepared.hpp"
#include "tests/fuzz/target.hpp"

void muster::fuzz::read(std::string_view bytes) {
  if (bytes.empty()) return;
  std::string tokens(static_cast<unsigned char>(bytes.front()), '\0');
  for (std::size_t i = 0; i < tokens.size(); i += 8) tokens[i] = static_cast<char>(i / 8 % 10);
  const std::string path = write("input.bin", tokens);
  write("input.idx", bytes.substr(1));
  prepare_file(path, *make_id_tokenizer(70000, 9), fnv1a(bytes), "u16");
}
