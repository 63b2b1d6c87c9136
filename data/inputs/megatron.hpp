// Where the documents of a .bin of Megatron-LM lie: its index, the .idx beside it.
//
// Little-endian: "MMIDIDX\0\0"; u64 version, 1; u8 type (1 u8, 2 i8, 3 i16, 4 i32, 5 i64, 8 u16; 6 and 7 are floating);
// u64 sequences; u64 document indices; i32 length of each sequence, in tokens; i64 where each starts, in bytes; i64
// document indices: the first sequence of each document, and the number of sequences. The .bin is tokens alone.
// Source: https://github.com/NVIDIA/Megatron-LM/blob/main/megatron/core/datasets/indexed_dataset.py
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "core/file.hpp"
#include "data/input.hpp"

namespace muster {

class MegatronIndex {
 public:
  static bool is_one(const std::string& path);
  // The name of the index of a .bin.
  static std::string beside(const std::string& bin);

  // Reads what stands before the lists.
  explicit MegatronIndex(const std::string& path);

  IdType type() const { return type_; }
  // Reads all of it, in bounded memory. UserError unless it tells of a .bin of `bytes`, in its order and without gaps.
  void check_against(const std::string& bin, std::uint64_t bytes) const;
  // Where documents start or end in a .bin of `bytes`, of those in [begin, end], in order and each once.
  std::vector<std::uint64_t> borders(std::uint64_t begin, std::uint64_t end, std::uint64_t bytes) const;

 private:
  std::uint64_t border(std::uint64_t document, std::uint64_t bytes) const;

  File file_;
  IdType type_ = IdType::u16;
  std::uint64_t sequences_ = 0, documents_ = 0;  // entries of the lists
};

// A .bin with its index.
InputFile examine_megatron(const std::string& bin, const std::string& token_type);

}  // namespace muster
