// Tokens made elsewhere, of numpy.
#include "tests/fuzz/prepared.hpp"
#include "tests/fuzz/target.hpp"

void muster::fuzz::read(std::string_view bytes) {
  prepare_file(write("input.npy", bytes), *make_id_tokenizer(256, 9), fnv1a(bytes));
}
