// dataset.json, as it is and with a hash that is right.
#include "data/dataset.hpp"
#include "tests/fuzz/target.hpp"

void muster::fuzz::read(std::string_view bytes) {
  for (const std::string& text : {std::string(bytes), sealed(bytes)}) {
    read_or_refuse([&] {
      write("dataset.json", text);
      read_dataset_info(folder());
    });
  }
}
