// Every wait of a training step on GPUs is needed: ThreadSanitizer, watching the stand-in of tests/cuda_on_host, sees
// a race when any single one is left out. The run without one is a process of its own, because it races.

#include <array>
#include <cstdio>
#include <cstdlib>
#include <gtest/gtest.h>
#include <memory>
#include <string>
#include <sys/wait.h>

#include "tests/trainer/small_run.hpp"

namespace muster {
namespace {

#if defined(__SANITIZE_THREAD__)
constexpr bool under_thread_sanitizer = true;
#else
constexpr bool under_thread_sanitizer = false;
#endif

// Forgets one wait, or one point that others would wait for.
class ForgetfulStream final : public Stream {
 public:
  ForgetfulStream(std::unique_ptr<Stream> stream, int forgotten_wait, int forgotten_point)
      : stream_(std::move(stream)), wait_(forgotten_wait), point_(forgotten_point) {}
  int waits() const { return waits_; }
  int points() const { return points_; }

  void enqueue(Work work) override { stream_->enqueue(std::move(work)); }
  void copy(void* to, const void* from, std::size_t bytes) override { stream_->copy(to, from, bytes); }
  void wait(const Event& event) override {
    if (event.point() == nullptr) return;
    if (waits_++ != wait_) stream_->wait(event);
  }
  Event record() override { return points_++ == point_ ? Event() : stream_->record(); }
  std::function<double()> timestamp() override { return stream_->timestamp(); }
  std::shared_ptr<Recording> capture(const std::function<void()>& append) override {
    return stream_->capture(append);
  }
  void replay(const Recording& recording) override { stream_->replay(recording); }

 private:
  std::unique_ptr<Stream> stream_;
  int wait_, point_;
  int waits_ = 0, points_ = 0;
};

Config config() {
  Config config = small_run::config();
  config.train.steps = 3;
  config.train.batch = config.train.shards = 4;
  config.model.layers = 1;
  return config;
}

int number(const char* variable) {
  const char* text = std::getenv(variable);
  return text == nullptr ? -1 : std::atoi(text);
}

// Started by the test below.
TEST(CudaWaits, DISABLED_one_is_forgotten) {
  const int wait = number("MUSTER_TEST_FORGET_WAIT"), point = number("MUSTER_TEST_FORGET_POINT");
  static thread_local const ForgetfulStream* of_this_rank = nullptr;
  small_run::Disturbance forgetful;
  forgetful.may_diverge = true;
  forgetful.device = DeviceKind::cuda;
  forgetful.wrap = [&](std::unique_ptr<Stream> stream) {
    auto wrapped = std::make_unique<ForgetfulStream>(std::move(stream), wait, point);
    of_this_rank = wrapped.get();
    return wrapped;
  };
  // Both ranks do the same.
  forgetful.before_step = [&](int rank, std::int64_t step, const RunPlan&, ModelState&) {
    if (rank == 0)
      std::fprintf(stderr, "before step %d: waits %d points %d\n", static_cast<int>(step),
                   of_this_rank->waits(), of_this_rank->points());
  };
  small_run::train(config(), 2, forgetful);
}

struct Observed {
  bool raced = false;
  std::array<int, 3> waits{}, points{};  // before each step
};

Observed run_without(const std::string& what) {
  const std::string command = what +
                              " CUDA_ON_HOST_DEVICES=2 CUDA_ON_HOST_THREADS=0"
                              " TSAN_OPTIONS=halt_on_error=1:atexit_sleep_ms=0 /proc/" +
                              std::to_string(getpid()) +
                              "/exe --gtest_also_run_disabled_tests "
                              "--gtest_filter=CudaWaits.DISABLED_one_is_forgotten 2>&1";
  const std::unique_ptr<FILE, int (*)(FILE*)> pipe(popen(command.c_str(), "r"), pclose);
  Observed run;
  std::array<char, 512> line;
  while (std::fgets(line.data(), line.size(), pipe.get()) != nullptr) {
    const std::string text(line.data());
    if (text.find("WARNING: ThreadSanitizer: data race") != std::string::npos) run.raced = true;
    int step = 0, waits = 0, points = 0;
    if (std::sscanf(line.data(), "before step %d: waits %d points %d", &step, &waits, &points) != 3) continue;
    run.waits.at(static_cast<std::size_t>(step)) = waits;
    run.points.at(static_cast<std::size_t>(step)) = points;
  }
  return run;
}

TEST(CudaWaits, are_all_needed) {
  if (!under_thread_sanitizer || cuda_device_count() == 0)
    GTEST_SKIP() << "needs ThreadSanitizer and the stand-in";
  const Observed whole = run_without("");
  EXPECT_FALSE(whole.raced);
  // All points of the first step: what it leaves behind is overwritten by those after it. All waits of the second: of
  // the parameters that the first has updated, too.
  EXPECT_EQ(whole.points[1] - whole.points[0], 7);
  for (int point = whole.points[0]; point < whole.points[1]; ++point)
    EXPECT_TRUE(run_without("MUSTER_TEST_FORGET_POINT=" + std::to_string(point)).raced) << "point " << point;
  EXPECT_EQ(whole.waits[2] - whole.waits[1], 4);
  for (int wait = whole.waits[1]; wait < whole.waits[2]; ++wait) {
    // The last wait, for the leaves' reports, is one for messages that may overtake others. NCCL's never do, so that here
    // the wait before it, for the sums of squares, holds for both.
    const bool implied = wait + 1 == whole.waits[2];
    EXPECT_EQ(run_without("MUSTER_TEST_FORGET_WAIT=" + std::to_string(wait)).raced, !implied)
        << "wait " << wait;
  }
}

}  // namespace
}  // namespace muster
