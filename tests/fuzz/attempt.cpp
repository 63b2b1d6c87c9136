// The file in which an attempt at a run tells who it is.
#include "tests/fuzz/target.hpp"
#include "trainer/run_folder.hpp"

void muster::fuzz::read(std::string_view bytes) {
  const RunFolder run(folder());
  std::filesystem::create_directories(run.attempts());
  write("attempts/000001", bytes);
  check(Attempt::newest(run).has_value(), "an attempt is not found");
}
