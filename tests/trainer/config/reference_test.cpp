#include "trainer/config/reference.hpp"

#include <cstdlib>
#include <gtest/gtest.h>

#include "core/file.hpp"

namespace muster {
namespace {

TEST(Reference, the_page_of_keys_is_that_of_the_table) {
  const std::string path = "docs/configuration.md";
  if (std::getenv("MUSTER_WRITE_DOCS") != nullptr) write_text_atomically(path, keys_as_markdown());
  EXPECT_EQ(read_text(path), keys_as_markdown())
      << "write it again: MUSTER_WRITE_DOCS=1 build/release/tests/trainer_tests --gtest_filter='Reference.*'";
}

}  // namespace
}  // namespace muster
