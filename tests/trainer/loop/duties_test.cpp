// What is done between two steps, and in which order.

#include "trainer/loop/duties.hpp"

#include <gtest/gtest.h>
#include <string>
#include <vector>

namespace muster {
namespace {

// Six steps; an evaluation after each second, a checkpoint after each third.
constexpr Rhythm rhythm{.steps = 6, .evaluate_every = 2, .save_every = 3};

// How the step ends for its ranks.
struct Happens {
  bool asked = false;          // to stop, in the step
  bool in_evaluation = false;  // asked while it evaluates, which ends that
  bool in_save = false;
  bool followed = false;
};

std::string name_of(Duty duty) {
  constexpr const char* names[duties] = {"settle", "trace", "save", "evaluate", "record", "ask"};
  return names[static_cast<std::size_t>(duty)];
}

// All that is done behind the step, as the loop does it.
std::string done_after(std::int64_t step, const Happens& happens = {}, const Rhythm& when = rhythm) {
  StepEnd end{step, happens.followed, happens.asked};
  std::string all;
  while (const std::optional<Duty> duty = next_duty(when, end)) {
    if (*duty == Duty::evaluate && happens.in_evaluation) end.asked = true;
    if (*duty == Duty::ask && happens.in_save) end.asked = true;
    EXPECT_FALSE(end.has(*duty)) << name_of(*duty) << " twice";
    end.add(*duty);
    all += (all.empty() ? "" : " ") + name_of(*duty);
  }
  return all;
}

TEST(Duties, of_a_usual_step_are_its_record) {
  EXPECT_EQ(done_after(1), "record");
  EXPECT_EQ(done_after(5), "record");
  EXPECT_EQ(done_after(1, {.followed = true}), "record");
}

TEST(Duties, settle_before_the_parameters_are_read_and_record_before_they_are_saved) {
  EXPECT_EQ(done_after(2), "settle evaluate record");
  EXPECT_EQ(done_after(3), "settle record save ask");
  EXPECT_EQ(done_after(12, {}, {.steps = 20, .evaluate_every = 2, .save_every = 3}),
            "settle evaluate record save ask");
}

TEST(Duties, of_the_last_step_record_and_save_before_they_evaluate_and_save_once) {
  EXPECT_EQ(done_after(6), "settle record save evaluate");
  EXPECT_EQ(done_after(7, {}, {.steps = 7, .evaluate_every = 2}), "settle record save evaluate");
  EXPECT_EQ(done_after(7, {}, {.steps = 7}), "settle record save");
}

TEST(Duties, of_a_traced_step_write_the_trace_when_nothing_is_under_way) {
  EXPECT_EQ(done_after(1, {}, {.steps = 6, .traced_step = 1}), "settle trace record");
  EXPECT_EQ(done_after(6, {}, {.steps = 6, .evaluate_every = 6, .traced_step = 6}),
            "settle trace record save evaluate");
}

TEST(Duties, of_a_step_that_was_asked_to_stop_save_and_leave_its_evaluation_out) {
  EXPECT_EQ(done_after(1, {.asked = true}), "settle record save");
  EXPECT_EQ(done_after(2, {.asked = true}), "settle record save");
  EXPECT_EQ(done_after(3, {.asked = true}), "settle record save");
}

TEST(Duties, of_a_step_that_is_followed_leave_the_save_to_the_one_behind_it) {
  EXPECT_EQ(done_after(4, {.asked = true, .followed = true}), "record");
  EXPECT_EQ(done_after(5, {.asked = true}), "settle record save");
}

TEST(Duties, of_an_evaluation_that_was_asked_to_stop_are_to_save) {
  EXPECT_EQ(done_after(2, {.in_evaluation = true}), "settle evaluate record save");
  EXPECT_EQ(done_after(6, {.in_evaluation = true}), "settle record save evaluate");
}

TEST(Duties, of_who_was_asked_in_a_save_are_done_with_it) {
  EXPECT_EQ(done_after(3, {.in_save = true}), "settle record save ask");
}

TEST(Duties, of_the_last_step_are_the_same_for_who_was_asked_to_stop) {
  EXPECT_EQ(done_after(6, {.asked = true}), done_after(6));
}

TEST(Rhythm, pauses_where_the_parameters_are_read) {
  std::vector<std::int64_t> pauses;
  for (std::int64_t step = 1; step <= 7; ++step)
    if (Rhythm{.steps = 7, .evaluate_every = 2, .save_every = 5, .traced_step = 3}.pauses_after(step))
      pauses.push_back(step);
  EXPECT_EQ(pauses, (std::vector<std::int64_t>{2, 3, 4, 5, 6, 7}));
}

// The step whose parameters are read is behind all others that were started.
TEST(Rhythm, lets_no_step_follow_one_that_has_more_to_do_than_its_record) {
  for (std::int64_t step = 1; step <= rhythm.steps; ++step)
    EXPECT_EQ(rhythm.pauses_after(step), done_after(step) != "record") << step;
}

}  // namespace
}  // namespace muster
