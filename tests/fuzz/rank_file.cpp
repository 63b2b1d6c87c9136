// One rank's file of a checkpoint whose bytes are not checked.
#include "trainer/checkpoint/rank_file.hpp"

#include <array>

#include "core/hdf5.hpp"
#include "tests/fuzz/target.hpp"

void muster::fuzz::read(std::string_view bytes) {
  const std::string path = write("rank-00000.h5", bytes);
  const RankFileReader reader(path);
  std::array<float, 4> values{};
  for (const std::string& name : H5File::open_to_read(path).datasets())
    read_or_refuse([&] { reader.read(name, 0, values); });
}
