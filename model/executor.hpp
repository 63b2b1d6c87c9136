// Runs a plan on a stream. Spaces are bound by whoever owns them, so that several plans (training,
// evaluation, prefill, decode) share one set of parameters and one arena.
#pragma once

#include <compare>
#include <cstddef>
#include <functional>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "core/stream.hpp"
#include "model/backend.hpp"
#include "model/graph/plan.hpp"

namespace muster {

// In the device's memory.
struct Bindings {
  std::byte* arena = nullptr;
  std::byte* master = nullptr;
  std::byte* compute = nullptr;   // null when the plan computes in f32
  std::byte* gradient = nullptr;  // null when the plan has no backward
  std::byte* state = nullptr;
  auto operator<=>(const Bindings&) const = default;
};

// When each step of a plan began and ended, in steady seconds; readable when the stream has been synchronized.
struct StepTimes {
  std::size_t step = 0;
  std::function<double()> begin, end;
};

struct ExecutorOptions {
  bool accumulate = false;                  // gradients of parameters are added to, not started from zero
  std::vector<StepTimes>* times = nullptr;  // to be filled; every step is then appended by itself
};

class Executor {
 public:
  // `plan` outlives it.
  Executor(const Plan& plan, const Backend& backend);

  // An input to fill, or a result to read, in this arena.
  TensorView view(std::string_view name, const Bindings& bindings) const;

  // Appends the plan to the stream.
  void run(Stream& stream, const Bindings& bindings, const StepScalars& scalars,
           const ExecutorOptions& options = {}) const;
  // The same in parts, for whoever has something to do between: first the scalars, then steps [begin, end), which are
  // recorded once and replayed as a whole, where the stream can.
  void set(Stream& stream, const Bindings& bindings, const StepScalars& scalars) const;
  void run(Stream& stream, const Bindings& bindings, std::size_t begin, std::size_t end,
           const ExecutorOptions& options = {}) const;

 private:
  // Steps that run as one, with all that their kernels' arguments depend on.
  struct Segment {
    std::size_t begin = 0, end = 0;
    Bindings bindings;
    bool accumulate = false;
    auto operator<=>(const Segment&) const = default;
  };
  void append(Stream& stream, const Segment& segment) const;
  void append_timed(Stream& stream, const Segment& segment, std::vector<StepTimes>& times) const;

  const Plan& plan_;
  Backend backend_;
  // Null until a segment has run once: libraries choose algorithms in a first run, which cannot be recorded.
  mutable std::map<Segment, std::shared_ptr<Recording>> recordings_;
};

// What a user should know of how a plan will be computed (KernelContext::remark), each line once.
std::set<std::string> remarks(const Plan& plan, const Backend& backend);

}  // namespace muster
