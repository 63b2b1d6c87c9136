#include "core/hash.hpp"

#include <gtest/gtest.h>

namespace muster {
namespace {

TEST(Hash, comes_back_from_its_digits_and_from_no_others) {
  for (const std::uint64_t hash : {std::uint64_t{0}, std::uint64_t{0x0123456789abcdef}, ~std::uint64_t{0}})
    EXPECT_EQ(from_hex(hex(hash)), hash);
  for (const char* text :
       {"", "0", "00000000000000000", "0123456789ABCDEF", "0x23456789abcdef", "-123456789abcdef"})
    EXPECT_EQ(from_hex(text), std::nullopt) << text;
}

// https://github.com/Cyan4973/xxHash: XXH3_64bits of nothing, seed 0.
TEST(Hash, is_xxh3_in_one_piece_and_in_several) {
  EXPECT_EQ(hex(hash_bytes({})), "2d06800538d394c2");
  const std::string text = "muster of ranks";
  Hasher hasher;
  hasher.add(std::as_bytes(std::span(text).first(4)));
  hasher.add(std::as_bytes(std::span(text).subspan(4)));
  EXPECT_EQ(hasher.value(), hash_bytes(std::as_bytes(std::span(text))));
}

}  // namespace
}  // namespace muster
