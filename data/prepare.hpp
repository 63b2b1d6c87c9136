// Text, JSON lines or tokens in; a dataset out.
//
// Documents go to validation by a hash of their start, to train otherwise; where the input is files of one document each
// (text, or tokens without an end token), too few for that, the end of each goes to validation. Or files are named for it. The work is parallel, its memory does not grow with the input
// (block_bytes and some per thread), and the bytes written depend neither on threads nor on the order in which a
// file system lists files. A failure leaves no dataset, and no file, behind.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "data/dataset.hpp"

namespace muster {

struct PrepareOptions {
  std::string tokenizer = "bytes";  // of text
  double validation = 0.02;         // the share held out, in [0, 1]
  // Files and folders that are held out whole; `validation` has no meaning then, and all other input is train's.
  std::vector<std::string> validation_inputs = {};
  bool skip_bad_lines = false;  // of JSON lines, instead of refusing the first
  std::uint64_t shard_tokens = std::uint64_t{64} << 20;
  // Of tokens made elsewhere (.npy, .bin).
  std::optional<std::uint32_t> vocabulary;
  std::optional<std::uint32_t> end_token;
  std::string token_type;  // of .bin: u16 or u32
  // Takes a line on what was passed over or done unasked.
  std::function<void(const std::string&)> tell = [](const std::string&) {};
};

struct PrepareProgress {
  std::uint64_t bytes = 0, total_bytes = 0;  // of the input
  std::uint64_t documents = 0, tokens = 0;
  std::uint64_t skipped_lines = 0;
};

// Writes the dataset into `output`, a new or empty folder. `progress` is called now and then, and at the end.
// The validation split may come out empty if documents are few.
DatasetInfo prepare(const std::vector<std::string>& inputs, const std::string& output,
                    const PrepareOptions& options,
                    const std::function<void(const PrepareProgress&)>& progress = {});

}  // namespace muster
