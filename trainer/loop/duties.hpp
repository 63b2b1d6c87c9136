// What is done between two steps, and in which order: known from numbers alone, so that all ranks, which have these alike,
// come to each collective together.
#pragma once

#include <bitset>
#include <cstddef>
#include <cstdint>
#include <optional>

#include "trainer/config/config.hpp"

namespace muster {

enum class Duty : std::uint8_t {
  settle,    // wait until nothing is under way: what follows reads the parameters
  trace,     // write what ran when in the step
  save,      // a checkpoint
  evaluate,  // on held-out text
  record,    // a line of metrics, and one on the screen
  ask        // again whether a rank was asked to stop
};
inline constexpr std::size_t duties = 6;

// After which steps something is due.
struct Rhythm {
  std::int64_t steps = 0;           // of the run
  std::int64_t evaluate_every = 0;  // 0: never
  std::int64_t save_every = 0;      // 0: at the end only
  std::int64_t traced_step = 0;     // 0: none

  bool evaluates_after(std::int64_t step) const;
  bool saves_after(std::int64_t step) const;
  // Whether the parameters are read after the step, so that no other may have been started behind it.
  bool pauses_after(std::int64_t step) const;
};
Rhythm rhythm_of(const Config& config, std::int64_t traced_step);

// A step that has ended, and what has been done since.
struct StepEnd {
  std::int64_t step = 0;
  bool followed = false;  // by a step that was started meanwhile
  bool asked = false;     // to stop: some rank, in this step or before it, or since
  std::bitset<duties> done = {};

  bool has(Duty duty) const { return done[static_cast<std::size_t>(duty)]; }
  void add(Duty duty) { done.set(static_cast<std::size_t>(duty)); }
};

// What is to be done next; nothing: the next step, or the end.
//
// A checkpoint is saved behind the record of its step, which a run that goes on from it never writes again. The last one is
// recorded and saved before its evaluation, too long a time to lose a whole run in; what that tells is added to the record. Whoever asks to stop waits for a save, and not for
// all of the held-out text.
std::optional<Duty> next_duty(const Rhythm& rhythm, const StepEnd& end);

}  // namespace muster
