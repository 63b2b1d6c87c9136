// manifest.json: what a checkpoint holds and where; written last, so a checkpoint without a whole one is not
// a checkpoint. It ends with a hash of itself.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

namespace muster {

struct Manifest {
  static constexpr std::int64_t format_version = 1;
  static constexpr const char* file_name = "manifest.json";

  struct File {
    std::uint64_t bytes = 0, hash = 0;
  };
  struct Piece {
    std::int64_t begin = 0, end = 0;  // elements of the tensor, row-major
    std::size_t file = 0;
    std::uint64_t position = 0;  // of element `begin` in the file's dataset
  };
  struct Tensor {
    std::vector<std::int64_t> shape;
    std::vector<Piece> pieces;  // cover the tensor from front to back, each element once
  };

  std::int64_t step = 0;
  std::int64_t attempt = 0;  // of the run, which started for the attempt-th time
  std::string saved;         // time, UTC
  std::vector<File> files;   // files[r] is rank r's
  std::map<std::string, Tensor> tensors;
  std::string state;  // JSON of whoever saved
};

// "rank-00003.h5".
std::string rank_file_name(std::size_t rank);
// Whether a tensor may have this name: a path of HDF5 groups that fits on one line of a message.
bool is_tensor_name(const std::string& name);
// Elements of a tensor of this shape; throws UserError if an extent is not positive or the number too large.
std::int64_t element_count(const std::vector<std::int64_t>& shape);
// Orders the pieces and sets their positions; returns what is wrong if they do not cover a tensor exactly.
std::string arrange_pieces(Manifest& manifest);

std::string to_text(const Manifest& manifest);
// Throws UserError naming the file and what is wrong with it, whatever the file holds.
Manifest read_manifest(const std::string& folder);

}  // namespace muster
