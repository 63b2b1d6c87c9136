// What is named to a user whose run does not fit: each remedy is taken here, and the run fits then.

#include "trainer/plan/remedies.hpp"

#include <gtest/gtest.h>
#include <string>

#include "core/error.hpp"
#include "trainer/config/read.hpp"
#include "trainer/plan/run_plan.hpp"

namespace muster {
namespace {

class Remedies : public testing::Test {
 protected:
  Config config_ = read_config("configs/gpt2-124m.toml", {});

  Demand demand(const Start& start, double gib) const {
    Demand needed;
    needed.planned = make_run_plan(for_ranks(start.config, start.ranks), start.ranks, 0, 1, 0).memory;
    needed.available = static_cast<std::uint64_t>(gib * 0x1p30) / static_cast<std::uint64_t>(shared(start));
    return needed;
  }
  std::string told(const Start& start, double gib) {
    return remedies(
        start, [&](const Start& other) { return demand(other, gib); }, share_memory_);
  }
  double needs(const Start& start) const { return static_cast<double>(demand(start, 1).needed()) / 0x1p30; }
  int shared(const Start& start) const { return share_memory_ ? start.local_ranks : 1; }

  bool share_memory_ = false;
};

TEST_F(Remedies, are_the_settings_that_suffice_each_alone) {
  config_.train.recompute = Recompute::none;
  config_.train.micro_batch = 8;
  const Start start{config_, 8, 8};
  Start norms = start, four = start;
  norms.config.train.recompute = Recompute::norms;
  four.config.train.micro_batch = 4;
  const double enough = std::max(needs(norms), needs(four)) + 0.01;
  ASSERT_LT(enough, needs(start));
  const std::string text = told(start, enough);
  EXPECT_NE(text.find("set train.recompute = \"norms\", or set train.micro_batch = 4"), std::string::npos)
      << text;
  EXPECT_EQ(text.find("smaller model"), std::string::npos) << text;
}

TEST_F(Remedies, name_a_number_of_ranks_that_suffices) {
  config_.train.micro_batch = 1;
  config_.train.recompute = Recompute::block;
  config_.run.precision = Precision::bf16;
  const Start start{config_, 2, 2};
  Start eight = start;
  eight.ranks = 8;
  EXPECT_EQ(told(start, needs(eight) + 0.001), "start 8 ranks, a GPU each");
}

TEST_F(Remedies, of_ranks_that_share_a_host_are_fewer_of_them) {
  share_memory_ = true;
  config_.train.micro_batch = 1;
  config_.train.recompute = Recompute::block;
  config_.run.precision = Precision::bf16;
  Start two{config_, 2, 2};
  const std::string text = told({config_, 4, 4}, 2 * needs(two) + 0.01);
  EXPECT_TRUE(text.starts_with("start 2 ranks")) << text;
}

TEST_F(Remedies, are_taken_together_where_none_suffices_alone) {
  config_.train.micro_batch = 8;
  config_.train.recompute = Recompute::none;
  config_.run.precision = Precision::bf16;
  const Start start{config_, 512, 8};  // as many as there are sequences
  Start both = start;
  both.config.train.batch = config_.train.batch = 512 * 8;
  both.config.train.recompute = Recompute::block;
  both.config.train.micro_batch = 1;
  both.ranks = 4096;
  Start other = start;
  other.config.train.batch = 512 * 8;
  const std::string text = told(other, needs(both) + 0.0001);
  EXPECT_EQ(
      text,
      "set train.recompute = \"block\", and set train.micro_batch = 1, and start 4096 ranks, a GPU each");
}

TEST_F(Remedies, tell_how_much_memory_would_do_where_no_setting_does) {
  const std::string text = told({config_, 32, 8}, 0.1);
  EXPECT_TRUE(text.starts_with("no setting suffices; take more memory, or a smaller model: a rank needs "))
      << text;
  EXPECT_NE(text.find("even if you set"), std::string::npos) << text;
}

TEST_F(Remedies, that_a_run_cannot_take_on_resume_say_so) {
  config_.train.reduction = Reduction::invariant;
  config_.run.precision = Precision::f32;
  config_.train.micro_batch = 8;
  const Start start{config_, 1, 1};
  Start smaller = start;
  smaller.config.train.micro_batch = 4;
  const std::string text = told(start, needs(smaller) + 0.01);
  EXPECT_NE(text.find("set train.micro_batch = 4 in a new run"), std::string::npos) << text;
}

}  // namespace
}  // namespace muster
