// Reading a checkpoint by tensor name and range, whichever ranks wrote it.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "trainer/checkpoint/folder.hpp"

namespace muster {

class Checkpoint {
 public:
  // `path` is the folder of one checkpoint. The manifest and the files' sizes are looked at in any case.
  static Checkpoint open(const std::string& path, Trust verify = Trust::used);
  Checkpoint(Checkpoint&&) noexcept;
  Checkpoint& operator=(Checkpoint&&) noexcept;
  ~Checkpoint();

  const std::string& path() const;
  std::int64_t step() const;
  // The JSON that was given to save_checkpoint.
  const std::string& state() const;

  std::vector<std::string> names() const;  // sorted
  const std::vector<std::int64_t>& shape(const std::string& name) const;
  // Throws UserError ("is of another model") unless it holds `name` with this shape.
  void require(const std::string& name, const std::vector<std::int64_t>& shape) const;

  // Elements [begin, end) of the tensor, from whichever files hold them. One thread at a time.
  void read(const std::string& name, std::int64_t begin, std::int64_t end, std::span<float> values) const;

  // Of all tensors in the order of their names: two checkpoints have the same hash if they hold the same
  // bits, whichever ranks wrote them.
  std::uint64_t hash() const;

 private:
  struct State;
  explicit Checkpoint(std::unique_ptr<State> state);
  std::unique_ptr<State> state_;
};

}  // namespace muster
