// One rank's file of a checkpoint: plain HDF5 with a contiguous f32 dataset for each tensor that the rank
// holds a part of, named as the tensor ("adam.m/block.0.norm.weight").
//
// A dataset holds the rank's pieces of that tensor one after another; its attributes say which they are:
// `begin` and `end` (one entry a piece, elements of the tensor in row-major order) and `shape`, the tensor's.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <span>
#include <string>
#include <vector>

namespace muster {

// A piece of a tensor that this rank holds.
struct Slice {
  std::string name;                 // "master/...", "adam.m/...", "adam.v/..."
  std::vector<std::int64_t> shape;  // of the whole tensor
  std::int64_t begin = 0, end = 0;  // elements of the tensor, row-major
  std::span<const float> values;    // end - begin of them
};

// HDF5 lays the file out, with holes for the values; these are then written from front to back straight from
// the slices' memory, and the file is hashed on the way. So its size is known before a value is written, and
// values pass neither the library's lock nor its buffers.
class RankFileWriter {
 public:
  // Creates the file. `slices` are sorted by name, then begin; their values must live as long as this.
  RankFileWriter(const std::string& path, std::span<const Slice> slices);

  std::uint64_t bytes() const { return bytes_; }
  // Writes the values and fsyncs; returns the hash of the whole file. `beat` is called after each part.
  std::uint64_t write(const std::function<void()>& beat = [] {});

 private:
  struct Piece {
    std::uint64_t offset;  // in the file
    std::span<const std::byte> values;
  };
  std::string path_;
  std::uint64_t bytes_ = 0;
  std::vector<Piece> pieces_;
};

class RankFileReader {
 public:
  explicit RankFileReader(std::string path);
  // Values [first, first + values.size()) of dataset `name`.
  void read(const std::string& name, std::uint64_t first, std::span<float> values) const;

 private:
  struct Place {
    std::uint64_t offset, length;
  };
  std::string path_;
  std::map<std::string, Place> places_;
};

}  // namespace muster
