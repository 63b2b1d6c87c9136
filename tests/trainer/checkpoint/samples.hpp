// What the checkpoint tests save and compare: a few tensors whose every bit follows from name, element and
// step, cut over ranks as a trainer cuts them (buckets of the flat space, each divided over the ranks, so
// that a rank holds several pieces of a large tensor and none of some small ones).
#pragma once

#include <algorithm>
#include <atomic>
#include <bit>
#include <cstring>
#include <deque>
#include <filesystem>
#include <fmt/format.h>
#include <fstream>
#include <gtest/gtest.h>
#include <stdlib.h>
#include <string>
#include <vector>

#include "comm/threads/ranks.hpp"
#include "core/error.hpp"
#include "core/hash.hpp"
#include "trainer/checkpoint/folder.hpp"
#include "trainer/checkpoint/load.hpp"
#include "trainer/checkpoint/save.hpp"

namespace muster::checkpoint_samples {

class TemporaryFolder {
 public:
  TemporaryFolder() {
    std::string name = (std::filesystem::temp_directory_path() / "muster-checkpoint-XXXXXX").string();
    check(mkdtemp(name.data()) != nullptr, "no temporary folder");
    path_ = name;
  }
  TemporaryFolder(const TemporaryFolder&) = delete;
  TemporaryFolder& operator=(const TemporaryFolder&) = delete;
  ~TemporaryFolder() {
    std::error_code ignored;
    std::filesystem::remove_all(path_, ignored);
  }
  const std::string& path() const { return path_; }

 private:
  std::string path_;
};

struct Tensor {
  std::string name;
  std::vector<std::int64_t> shape;

  std::int64_t count() const {
    std::int64_t n = 1;
    for (const std::int64_t extent : shape) n *= extent;
    return n;
  }
  // Any bit pattern, NaNs included: nothing may be lost on the way.
  float value(std::int64_t element, std::int64_t step) const {
    const std::string key = fmt::format("{}:{}:{}", name, element, step);
    return std::bit_cast<float>(fnv1a(key));
  }
};

inline std::vector<Tensor> tensors() {
  std::vector<Tensor> all;
  for (const char* kind : {"master", "adam.m", "adam.v"})
    for (const auto& [name, shape] : std::vector<std::pair<std::string, std::vector<std::int64_t>>>{
             {"embedding.weight", {29, 17}},
             {"block.0.norm.bias", {5}},
             {"block.0.attention.qkv.weight", {24, 2, 8}},
             {"head.scale", {1}}})
      all.push_back({fmt::format("{}/{}", kind, name), shape});
  return all;
}

// A rank's slices and the memory behind them.
struct Owned {
  std::deque<std::vector<float>> memory;
  std::vector<Slice> slices;
};

inline Owned owned(int rank, int ranks, std::int64_t step, std::int64_t bucket = 128) {
  Owned mine;
  std::int64_t flat = 0;
  for (const Tensor& tensor : tensors()) {
    for (std::int64_t begin = 0; begin < tensor.count();) {
      const std::int64_t piece = bucket / ranks;
      const std::int64_t end = std::min(tensor.count(), begin + piece - (flat + begin) % piece);
      if ((flat + begin) / piece % ranks == rank) {
        std::vector<float>& values = mine.memory.emplace_back();
        for (std::int64_t i = begin; i < end; ++i) values.push_back(tensor.value(i, step));
        mine.slices.push_back({tensor.name, tensor.shape, begin, end, values});
      }
      begin = end;
    }
    flat += tensor.count();
  }
  return mine;
}

inline std::string state_of(std::int64_t step) {
  return fmt::format(R"({{"samples":{},"seed":18446744073709551615,"lr":0.1,"corpus":"é"}})", step * 8);
}

inline void save_one(Communicator& comm, const std::string& folder, std::int64_t step,
                     std::int64_t attempt = 1) {
  CheckpointRequest request;
  request.folder = folder;
  request.step = step;
  request.attempt = attempt;
  request.state = state_of(step);
  const Owned mine = owned(comm.rank(), comm.size(), step);
  save_checkpoint(comm, request, mine.slices);
}

inline void save(const std::string& folder, int ranks, std::int64_t step, std::int64_t attempt = 1) {
  run_ranks(ranks, [&](Communicator& comm) { save_one(comm, folder, step, attempt); });
}

// Reads it all as `ranks` ranks would, and compares every bit.
inline void expect_holds_step(const Checkpoint& checkpoint, std::int64_t step, int ranks = 1) {
  EXPECT_EQ(checkpoint.step(), step);
  EXPECT_EQ(checkpoint.state(), state_of(step));
  EXPECT_EQ(checkpoint.names().size(), tensors().size());
  for (int rank = 0; rank < ranks; ++rank)
    for (const Slice& slice : owned(rank, ranks, step, 96).slices) {
      checkpoint.require(slice.name, slice.shape);
      std::vector<float> values(slice.values.size(), -1.0f);
      checkpoint.read(slice.name, slice.begin, slice.end, values);
      ASSERT_EQ(std::memcmp(values.data(), slice.values.data(), slice.values.size_bytes()), 0)
          << slice.name << " [" << slice.begin << ", " << slice.end << ")";
    }
}

// The one-line message of the UserError that `run` throws.
template <class Run>
std::string message_of(Run&& run) {
  try {
    run();
  } catch (const UserError& error) {
    EXPECT_EQ(std::string(error.what()).find('\n'), std::string::npos) << error.what();
    return error.what();
  }
  ADD_FAILURE() << "nothing was refused";
  return {};
}

inline std::string bytes_of(const std::string& path) {
  std::ifstream in(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(in), {}};
}

inline void overwrite(const std::string& path, const std::string& bytes) {
  std::ofstream(path, std::ios::binary | std::ios::trunc) << bytes;
}

// Inverts bits of one byte in place.
inline void flip(const std::string& path, std::size_t at, int bits) {
  std::fstream file(path, std::ios::binary | std::ios::in | std::ios::out);
  file.seekg(static_cast<std::streamoff>(at));
  const int byte = file.get();
  file.seekp(static_cast<std::streamoff>(at));
  file.put(static_cast<char>(byte ^ bits));
}

inline std::vector<std::string> names_in(const std::string& folder) {
  std::vector<std::string> names;
  for (const auto& entry : std::filesystem::directory_iterator(folder))
    names.push_back(entry.path().filename().string());
  std::sort(names.begin(), names.end());
  return names;
}

}  // namespace muster::checkpoint_samples
