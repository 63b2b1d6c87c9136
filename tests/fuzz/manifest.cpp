// manifest.json of a checkpoint, as it is and with a hash that is right.
#include "trainer/checkpoint/manifest.hpp"

#include "tests/fuzz/target.hpp"

void muster::fuzz::read(std::string_view bytes) {
  for (const std::string& text : {std::string(bytes), sealed(bytes)}) {
    read_or_refuse([&] {
      write(Manifest::file_name, text);
      const Manifest manifest = read_manifest(folder());
      for (const auto& [name, tensor] : manifest.tensors)
        check(!tensor.pieces.empty() && tensor.pieces.back().end == element_count(tensor.shape),
              "pieces that do not cover their tensor");
    });
  }
}
