// What the tests of prepare share: what a dataset holds, and token files.
#pragma once

#include <gtest/gtest.h>
#include <span>
#include <string>
#include <vector>

#include "core/hash.hpp"
#include "data/prepare.hpp"
#include "data/shard.hpp"
#include "data/tokenizer.hpp"
#include "tests/data/scratch.hpp"

namespace muster {

class Prepare : public Scratch {
 protected:
  // Tokens of a split, document by document, shard after shard.
  static std::vector<std::vector<std::int32_t>> documents(const Dataset& dataset, Split split) {
    std::vector<std::vector<std::int32_t>> documents;
    for (const Shard& shard : dataset.shards(split)) {
      std::vector<std::int64_t> ends(shard.documents());
      shard.read_document_ends(0, ends);
      std::int64_t begin = 0;
      for (const std::int64_t end : ends) {
        documents.emplace_back(static_cast<std::size_t>(end - begin));
        shard.read_tokens(static_cast<std::uint64_t>(begin), documents.back());
        begin = end;
      }
    }
    return documents;
  }
  static std::vector<std::string> texts(const Dataset& dataset, Split split) {
    std::vector<std::string> texts;
    const auto tokenizer = make_tokenizer("bytes");
    for (const auto& document : documents(dataset, split)) {
      EXPECT_EQ(document.back(), 256);
      const std::vector<std::uint32_t> tokens(document.begin(), document.end());
      texts.push_back(tokenizer->decode(tokens));
    }
    return texts;
  }
  static PrepareOptions all_train() {
    PrepareOptions options;
    options.validation = 0;
    return options;
  }
  // Reproducible text without a period that a block could hide.
  static std::string long_text(std::size_t bytes) {
    std::string text;
    for (std::uint64_t i = 0; text.size() < bytes; ++i)
      text += hex(hash_bytes(std::as_bytes(std::span(&i, 1)))) + " ";
    text.resize(bytes);
    return text;
  }
};

template <class T>
std::string raw(const std::vector<T>& values) {
  return std::string(reinterpret_cast<const char*>(values.data()), values.size() * sizeof(T));
}

inline std::string npy(const std::string& descr, const std::string& shape, const std::string& contents) {
  std::string header = "{'descr': '" + descr + "', 'fortran_order': False, 'shape': " + shape + ", }";
  while ((header.size() + 11) % 64 != 0) header += ' ';
  header += '\n';
  std::string file("\x93NUMPY\x01\x00", 8);
  file += static_cast<char>(header.size() % 256);
  file += static_cast<char>(header.size() / 256);
  return file + header + contents;
}

}  // namespace muster
