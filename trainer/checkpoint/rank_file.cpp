#include "trainer/checkpoint/rank_file.hpp"

#include <algorithm>

#include "core/error.hpp"
#include "core/file.hpp"
#include "core/hash.hpp"
#include "core/hdf5.hpp"

namespace muster {
namespace {

constexpr std::size_t chunk_bytes = 1 << 20;  // hashed and written while it is in the cache

}  // namespace

RankFileWriter::RankFileWriter(const std::string& path, std::span<const Slice> slices) : path_(path) {
  H5File file = H5File::create(path);
  file.set_attribute("/", "format_version", std::int64_t{1});
  for (std::size_t first = 0; first < slices.size();) {
    const Slice& tensor = slices[first];
    std::vector<std::int64_t> begins, ends;
    std::uint64_t length = 0;
    std::size_t last = first;
    for (; last < slices.size() && slices[last].name == tensor.name; ++last) {
      begins.push_back(slices[last].begin);
      ends.push_back(slices[last].end);
      length += slices[last].values.size();
    }
    const H5Dataset dataset = file.create_dataset(tensor.name, DType::f32, length);
    check(dataset.file_offset().has_value(), "HDF5 gave a new dataset no place");
    std::uint64_t offset = *dataset.file_offset();
    for (; first < last; ++first) {
      pieces_.push_back({offset, std::as_bytes(slices[first].values)});
      offset += slices[first].values.size_bytes();
    }
    file.set_attribute(tensor.name, "begin", begins);
    file.set_attribute(tensor.name, "end", ends);
    file.set_attribute(tensor.name, "shape", tensor.shape);
  }
  file.close();
  bytes_ = File::open_to_read(path).size();
  std::sort(pieces_.begin(), pieces_.end(),
            [](const Piece& a, const Piece& b) { return a.offset < b.offset; });
}

std::uint64_t RankFileWriter::write(const std::function<void()>& beat) {
  File file = File::open_to_update(path_);
  Hasher hasher;
  std::vector<std::byte> structure;
  std::uint64_t at = 0;
  const auto hash_structure = [&](std::uint64_t end) {
    structure.resize(end - at);
    file.read_exactly(structure, at);
    hasher.add(structure);
  };
  for (const auto& [offset, values] : pieces_) {
    hash_structure(offset);
    for (std::size_t done = 0; done < values.size(); done += chunk_bytes) {
      const auto chunk = values.subspan(done, std::min(values.size() - done, chunk_bytes));
      hasher.add(chunk);
      file.write_at(chunk, offset + done);
      beat();
    }
    at = offset + values.size();
  }
  hash_structure(bytes_);
  file.sync();
  return hasher.value();
}

RankFileReader::RankFileReader(std::string path) : path_(std::move(path)) {
  const H5File file = H5File::open_to_read(path_);
  for (const std::string& name : file.datasets()) {
    const H5Dataset dataset = file.dataset(name);
    if (dataset.type() != DType::f32 || !dataset.file_offset())
      throw UserError("dataset {} of {} is not plain f32 in one piece: restore the file from a copy", name,
                      path_);
    places_[name] = {*dataset.file_offset(), dataset.length()};
  }
}

void RankFileReader::read(const std::string& name, std::uint64_t first, std::span<float> values) const {
  const auto found = places_.find(name);
  if (found == places_.end() || first > found->second.length || values.size() > found->second.length - first)
    throw UserError("{} does not hold the part of {} that its manifest says: restore it from a copy", path_,
                    name);
  const File file = File::open_to_read(path_);
  file.read_exactly(std::as_writable_bytes(values), found->second.offset + first * sizeof(float));
}

}  // namespace muster
