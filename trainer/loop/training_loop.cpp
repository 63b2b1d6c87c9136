#include "trainer/loop/training_loop.hpp"

#include <utility>

#include "comm/agree.hpp"
#include "trainer/schedule.hpp"

namespace muster {

TrainingLoop::TrainingLoop(const LoopParts& parts, const Position& position)
    : parts_(parts),
      rhythm_(rhythm_of(parts.config, parts.host.traced_step)),
      result_{.position = position},
      steps_(parts.step, parts.prefetch, result_.position, parts.host.machine.is_cpu(), rhythm_.steps),
      traffic_(parts.host.ranks.device, parts.plan),
      saved_step_(position.step) {}

LoopResult TrainingLoop::run() {
  begin();
  while (true) {
    if (!asked_) start_steps();
    if (steps_.pending() == 0) break;
    end_step();
  }
  result_.sent = traffic_.sent();
  return result_;
}

void TrainingLoop::begin() {
  const std::int64_t step = result_.position.step;
  const bool any_left = step < rhythm_.steps;
  if (speaks() && rhythm_.traced_step > 0 && rhythm_.traced_step <= step)
    parts_.log.info("step {} is past: it is not traced", rhythm_.traced_step);
  // Asked before its first step, it has nothing new to save. (A time limit lets each start get on by a step.)
  asked_ = any_left && any_rank(parts_.host.stop_requested(step), "signals of the start");
  if (speaks() && any_left && !asked_) parts_.log.info(step_heading(rhythm_.steps));
  traffic_.resume();
  recorded_ = Clock::now();
}

void TrainingLoop::start_steps() {
  const auto order = [this](std::int64_t step) {
    for (Communicator* of : {&comm(), &parts_.host.ranks.device}) of->pulse().set_step(step);
    ++result_.steps_taken;
    const Config& config = parts_.config;
    return StepOrder{learning_rate(config.schedule, config.optimizer.lr, rhythm_.steps, step),
                     [this, step] { return wants_to_stop(step); },
                     step == rhythm_.traced_step ? parts_.trace->begin() : nullptr};
  };
  steps_.start(order, [this](std::int64_t step) { return rhythm_.pauses_after(step); });
}

void TrainingLoop::end_step() {
  finished_ = steps_.finish();
  const StepResult& result = finished_.result;
  result_.merged_documents += result.merged_documents;
  tell_unsaved();
  StepEnd end{result_.position.step, steps_.pending() > 0, asked_ || result.stop};
  while (const std::optional<Duty> duty = next_duty(rhythm_, end)) {
    perform(*duty, end);
    end.add(*duty);
  }
  asked_ = end.asked;
  if (end.has(Duty::settle)) traffic_.resume();
}

void TrainingLoop::perform(Duty duty, StepEnd& end) {
  switch (duty) {
    case Duty::settle:
      return settle();
    case Duty::trace:
      return trace();
    case Duty::save:
      return save();
    case Duty::evaluate:
      return evaluate(end);
    case Duty::record:
      return record(end);
    case Duty::ask:
      end.asked = any_rank(wants_to_stop(end.step), "signals of a save");
  }
}

void TrainingLoop::settle() {
  parts_.step.settle();
  parts_.host.machine.stream().synchronize();
  traffic_.pause(result_.steps_taken);
}

void TrainingLoop::trace() {
  parts_.trace->write(parts_.plan.training, comm());
  if (speaks()) parts_.log.info("wrote {}: open it in ui.perfetto.dev", parts_.trace->path());
}

void TrainingLoop::save() {
  // Where the loss is not finite, the older ones may be the last that are worth anything.
  parts_.saver.save(result_.position, !result_.skipped.diverging());
  saved_step_ = result_.position.step;
  tell_unsaved();
}

void TrainingLoop::evaluate(StepEnd& end) {
  const EvaluationResult result =
      parts_.evaluation->run(parts_.state.inference(), [&] { return wants_to_stop(end.step); });
  if (result.stopped) {
    end.asked = true;
    if (speaks()) parts_.log.info("asked to stop: the evaluation after step {} is not finished", end.step);
    return;
  }
  result_.evaluation = result;
  if (!end.has(Duty::record))
    evaluated_ = result;
  else if (parts_.report != nullptr)
    parts_.report->add(result);
}

void TrainingLoop::record(const StepEnd& end) {
  if (speaks() && end.asked && rhythm_.evaluates_after(end.step) && !end.has(Duty::evaluate))
    parts_.log.info("asked to stop: the evaluation after step {} is left out", end.step);
  result_.skipped.count(finished_.result);
  const Clock::time_point now = Clock::now();
  const std::chrono::duration<double> in_all = now - std::exchange(recorded_, now);
  const auto evaluation = std::exchange(evaluated_, std::nullopt);
  if (parts_.report != nullptr)
    parts_.report->tell({end.step, finished_.result, finished_.seconds, in_all.count(), evaluation});
  if (result_.skipped.wasted())
    agree(comm(), "looking at the loss", [&] { result_.skipped.refuse_to_waste(end.step); });
}

bool TrainingLoop::wants_to_stop(std::int64_t step) const {
  return parts_.host.stop_requested(step) || parts_.limit.is_up();
}

bool TrainingLoop::any_rank(bool wish, const char* what) const {
  return least_of_ranks(comm(), wish ? 0 : 1, what) == 0;
}

}  // namespace muster
