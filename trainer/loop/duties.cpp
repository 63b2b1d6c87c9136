#include "trainer/loop/duties.hpp"

namespace muster {
namespace {

bool divides(std::int64_t every, std::int64_t step) { return every > 0 && step % every == 0; }

}  // namespace

bool Rhythm::evaluates_after(std::int64_t step) const {
  return divides(evaluate_every, step) || (evaluate_every > 0 && step == steps);
}

bool Rhythm::saves_after(std::int64_t step) const { return divides(save_every, step) || step == steps; }

bool Rhythm::pauses_after(std::int64_t step) const {
  return evaluates_after(step) || saves_after(step) || step == traced_step;
}

Rhythm rhythm_of(const Config& config, std::int64_t traced_step) {
  return {config.train.steps, config.eval.every, config.checkpoint.every, traced_step};
}

std::optional<Duty> next_duty(const Rhythm& rhythm, const StepEnd& end) {
  const bool last = end.step == rhythm.steps;
  const bool stops = end.asked && !last, ends = last || (stops && !end.followed);
  const bool traces = end.step == rhythm.traced_step;
  const bool evaluates = !stops && rhythm.evaluates_after(end.step);
  const bool saves = ends || rhythm.saves_after(end.step);

  if (!end.has(Duty::settle) && (traces || evaluates || saves)) return Duty::settle;
  if (!end.has(Duty::trace) && traces) return Duty::trace;
  if (!end.has(Duty::evaluate) && evaluates && !last) return Duty::evaluate;
  if (!end.has(Duty::record)) return Duty::record;
  if (!end.has(Duty::save) && saves) return Duty::save;
  // Who was asked while the others saved need not take another step.
  if (!end.has(Duty::ask) && saves && !ends && !end.asked) return Duty::ask;
  if (!end.has(Duty::evaluate) && evaluates) return Duty::evaluate;
  return std::nullopt;
}

}  // namespace muster
