#include "core/philox.hpp"

#include <gtest/gtest.h>

namespace muster {
namespace {

// Known answers of Random123 1.14, kat_vectors, philox4x32 with 10 rounds.
TEST(Philox, gives_the_known_answers_of_random123) {
  EXPECT_EQ(philox({0, 0, 0, 0}, 0), (Philox4{0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}));
  EXPECT_EQ(philox({~0u, ~0u, ~0u, ~0u}, ~0ull), (Philox4{0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd}));
  EXPECT_EQ(philox({0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344}, 0x299f31d0a4093822ull),
            (Philox4{0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1}));
}

TEST(Philox, uniform_stays_below_one) {
  EXPECT_EQ(uniform(0), 0.0f);
  EXPECT_LT(uniform(~0u), 1.0f);
}

}  // namespace
}  // namespace muster
