#include "trainer/checkpoint/load.hpp"

#include <algorithm>
#include <map>

#include "core/error.hpp"
#include "core/hash.hpp"
#include "trainer/checkpoint/manifest.hpp"
#include "trainer/checkpoint/rank_file.hpp"

namespace muster {

struct Checkpoint::State {
  std::string path;
  Trust verify;
  Manifest manifest;
  std::map<std::size_t, RankFileReader> readers;  // of the files used so far

  const Manifest::Tensor& tensor(const std::string& name) const {
    const auto found = manifest.tensors.find(name);
    if (found == manifest.tensors.end())
      throw UserError(
          "{} is of another model: it holds no {}; set the model's keys as they were or choose another "
          "run.dir",
          path, name);
    return found->second;
  }

  const RankFileReader& reader(std::size_t rank) {
    if (const auto found = readers.find(rank); found != readers.end()) return found->second;
    const std::string file = path + "/" + rank_file_name(rank);
    if (verify == Trust::used && hash_file(file) != manifest.files[rank].hash)
      throw UserError(
          "{} was altered: its checksum does not match; restore it from a copy or remove {} to use the one "
          "before",
          file, path);
    return readers.try_emplace(rank, file).first->second;
  }
};

Checkpoint Checkpoint::open(const std::string& path, Trust verify) {
  auto state = std::make_unique<State>(State{path, verify, read_manifest(path), {}});
  if (const auto problems = verify_checkpoint(path, verify); !problems.empty())
    throw UserError("cannot use {}: {}; restore it from a copy or remove it to use the one before", path,
                    problems.front());
  return Checkpoint(std::move(state));
}

Checkpoint::Checkpoint(std::unique_ptr<State> state) : state_(std::move(state)) {}
Checkpoint::Checkpoint(Checkpoint&&) noexcept = default;
Checkpoint& Checkpoint::operator=(Checkpoint&&) noexcept = default;
Checkpoint::~Checkpoint() = default;

const std::string& Checkpoint::path() const { return state_->path; }
std::int64_t Checkpoint::step() const { return state_->manifest.step; }
const std::string& Checkpoint::state() const { return state_->manifest.state; }

std::vector<std::string> Checkpoint::names() const {
  std::vector<std::string> names;
  for (const auto& [name, tensor] : state_->manifest.tensors) names.push_back(name);
  return names;
}

const std::vector<std::int64_t>& Checkpoint::shape(const std::string& name) const {
  return state_->tensor(name).shape;
}

void Checkpoint::require(const std::string& name, const std::vector<std::int64_t>& shape) const {
  if (const auto& there = state_->tensor(name).shape; there != shape)
    throw UserError(
        "{} is of another model: {} is [{}] there and [{}] here; set the model's keys as they were or choose "
        "another run.dir",
        state_->path, name, fmt::join(there, ", "), fmt::join(shape, ", "));
}

void Checkpoint::read(const std::string& name, std::int64_t begin, std::int64_t end,
                      std::span<float> values) const {
  const Manifest::Tensor& tensor = state_->tensor(name);
  check(0 <= begin && begin <= end && end <= element_count(tensor.shape), "a range outside of its tensor");
  check(values.size() == static_cast<std::uint64_t>(end - begin), "room for another number of values");
  // The first piece that ends behind `begin`; pieces are in order and leave no gap.
  auto piece = std::upper_bound(tensor.pieces.begin(), tensor.pieces.end(), begin,
                                [](std::int64_t at, const Manifest::Piece& p) { return at < p.end; });
  for (std::int64_t at = begin; at < end; ++piece) {
    const std::int64_t stop = std::min(end, piece->end);
    state_->reader(piece->file)
        .read(name, piece->position + static_cast<std::uint64_t>(at - piece->begin),
              values.subspan(static_cast<std::size_t>(at - begin), static_cast<std::size_t>(stop - at)));
    at = stop;
  }
}

std::uint64_t Checkpoint::hash() const {
  constexpr std::int64_t chunk = 1 << 20;
  std::vector<float> values;
  Hasher hasher;
  for (const auto& [name, tensor] : state_->manifest.tensors) {
    hasher.add(std::as_bytes(std::span(name)));
    hasher.add(std::as_bytes(std::span(tensor.shape)));
    const std::int64_t elements = element_count(tensor.shape);
    for (std::int64_t begin = 0; begin < elements; begin += chunk) {
      values.resize(static_cast<std::size_t>(std::min(chunk, elements - begin)));
      read(name, begin, std::min(elements, begin + chunk), values);
      hasher.add(std::as_bytes(std::span(values)));
    }
  }
  return hasher.value();
}

}  // namespace muster
