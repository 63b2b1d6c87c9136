#include <algorithm>
#include <array>
#include <cmath>
#include <csignal>
#include <filesystem>
#include <gtest/gtest.h>
#include <limits>
#include <nlohmann/json.hpp>
#include <sstream>
#include <sys/stat.h>
#include <unistd.h>

#include "core/error.hpp"
#include "core/file.hpp"
#include "trainer/metrics/log.hpp"
#include "trainer/metrics/metrics_file.hpp"
#include "trainer/metrics/step_line.hpp"

namespace muster {
namespace {

class Metrics : public testing::Test {
 protected:
  Metrics() {
    std::string pattern = (std::filesystem::temp_directory_path() / "muster_metrics_XXXXXX").string();
    root_ = mkdtemp(pattern.data());
    path_ = root_ + "/metrics.jsonl";
  }
  ~Metrics() override { std::filesystem::remove_all(root_); }

  std::vector<std::int64_t> steps() const {
    std::vector<std::int64_t> seen;
    std::istringstream text(read_text(path_));
    for (std::string line; std::getline(text, line);) seen.push_back(nlohmann::json::parse(line).at("step"));
    return seen;
  }

  std::string root_, path_;
};

StepRecord record(std::int64_t step, std::int64_t attempt = 1) {
  return {.step = step, .attempt = attempt, .loss = 1.0 / 3, .grad_norm = 0.1 + 0.2, .lr = 3e-4};
}

TEST_F(Metrics, numbers_come_back_with_every_bit) {
  StepRecord r = record(7, 2);
  r.loss = std::nextafter(2.5, 3.0);
  r.grad_norm = 5e-324;
  r.tokens_per_s = 1e22;
  r.eval_loss = 0.1;
  const auto json = nlohmann::json::parse(to_json_line(r));
  EXPECT_EQ(json["step"], 7);
  EXPECT_EQ(json["attempt"], 2);
  EXPECT_EQ(json["loss"].get<double>(), r.loss);
  EXPECT_EQ(json["grad_norm"].get<double>(), r.grad_norm);
  EXPECT_EQ(json["lr"].get<double>(), r.lr);
  EXPECT_EQ(json["tokens_per_s"].get<double>(), r.tokens_per_s);
  EXPECT_EQ(json["eval_loss"].get<double>(), 0.1);
  EXPECT_FALSE(nlohmann::json::parse(to_json_line(record(1))).contains("eval_loss"));
}

TEST_F(Metrics, a_loss_that_is_not_finite_is_null) {
  StepRecord r = record(1);
  r.loss = std::numeric_limits<double>::quiet_NaN();
  r.grad_norm = std::numeric_limits<double>::infinity();
  r.skipped = true;
  const auto json = nlohmann::json::parse(to_json_line(r));
  EXPECT_TRUE(json["loss"].is_null());
  EXPECT_TRUE(json["grad_norm"].is_null());
  EXPECT_EQ(json["skipped"], true);
}

TEST_F(Metrics, resuming_cuts_back_to_the_step_of_the_checkpoint) {
  {
    MetricsFile file(path_, 0);
    for (int step = 1; step <= 5; ++step) file.append(record(step));
  }
  {
    MetricsFile file(path_, 3);
    EXPECT_EQ(steps(), (std::vector<std::int64_t>{1, 2, 3}));
    file.append(record(4, 2));
  }
  EXPECT_EQ(steps(), (std::vector<std::int64_t>{1, 2, 3, 4}));
  EXPECT_NE(read_text(path_).find("\"attempt\":2"), std::string::npos);
}

TEST_F(Metrics, a_torn_last_line_is_dropped) {
  const std::string whole = to_json_line(record(1)) + "\n" + to_json_line(record(2)) + "\n";
  for (const std::string torn : {"{\"step\":3,\"lo", "{\"step\":2", "null", "{\"step\":3}"}) {
    write_text_atomically(path_, whole + torn);
    MetricsFile file(path_, 10);
    file.append(record(3));
    EXPECT_EQ(steps(), (std::vector<std::int64_t>{1, 2, 3})) << torn;
  }
}

TEST_F(Metrics, damaged_doubled_and_missing_lines_are_mended_and_told) {
  const auto line = [](std::int64_t step, std::int64_t attempt = 1) {
    return to_json_line(record(step, attempt)) + "\n";
  };
  const std::string torn = line(3).substr(0, 20) + "\n", flipped = "x" + line(4),
                    deep = std::string(50000, '[') + "\n";
  write_text_atomically(
      path_, line(2) + line(1) + line(2) + torn + flipped + deep + line(6, 2) + line(6, 1) + line(9));
  const MetricsFile file(path_, 7);
  EXPECT_EQ(steps(), (std::vector<std::int64_t>{1, 2, 6}));
  EXPECT_NE(read_text(path_).find("\"attempt\":2"), std::string::npos) << "the latest attempt's stays";
  EXPECT_EQ(read_text(path_ + ".damaged"), torn + flipped + deep);
  EXPECT_EQ(file.remark(),
            path_ + ": 3 of its lines were no records and are now in " + path_ +
                ".damaged; 2 stood twice and were removed; 4 of 7 steps are missing, the first is 3");
}

TEST_F(Metrics, what_is_as_it_should_be_is_not_remarked_on) {
  write_text_atomically(path_,
                        to_json_line(record(1)) + "\n" + to_json_line(record(2)) + "\n{\"step\":3,\"lo");
  EXPECT_EQ(MetricsFile(path_, 2).remark(), "");
  EXPECT_EQ(MetricsFile(path_, 1).remark(), "");
  EXPECT_FALSE(std::filesystem::exists(path_ + ".damaged"));
}

TEST_F(Metrics, what_a_superseded_attempt_still_writes_does_not_enter_the_file) {
  MetricsFile old(path_, 0);
  old.append(record(1));
  MetricsFile fresh(path_, 1);
  old.append(record(2));
  fresh.append(record(2, 2));
  EXPECT_EQ(steps(), (std::vector<std::int64_t>{1, 2}));
  EXPECT_NE(read_text(path_).find("\"attempt\":2"), std::string::npos);
}

TEST_F(Metrics, what_is_known_later_of_a_step_takes_the_place_of_its_line) {
  MetricsFile file(path_, 0);
  for (const std::int64_t step : {1, 2}) {
    file.append(record(step));
    StepRecord evaluated = record(step);
    evaluated.eval_loss = 0.5;
    file.amend(evaluated);
  }
  file.append(record(3));
  EXPECT_EQ(steps(), (std::vector<std::int64_t>{1, 2, 3}));
  const std::string text = read_text(path_);
  EXPECT_LT(text.find("eval_loss"), text.rfind("eval_loss"));
  EXPECT_LT(text.rfind("eval_loss"), text.find("\"step\":3"));
}

TEST_F(Metrics, a_full_disk_names_the_file) {
  // /dev/full fails every write with ENOSPC.
  try {
    File::open_to_append("/dev/full").write("x");
    FAIL() << "the write went through";
  } catch (const UserError& error) {
    EXPECT_NE(std::string(error.what()).find("/dev/full: No space left on device: free space"),
              std::string::npos)
        << error.what();
  }
}

TEST(StepLine, lines_stand_under_their_headings_at_every_step) {
  StepRecord r{
      .step = 1, .loss = 10.8249, .grad_norm = 12.3456, .lr = 3e-6, .tokens_per_s = 12345, .sol = 0.4567};
  EXPECT_EQ(step_heading(2000), "      step      loss      norm        lr  tokens/s    sol  left        ");
  EXPECT_EQ(step_line(r, 2000, 754),
            "    1/2000   10.8249      12.3  3.00e-06    12.3 k  45.7%  12 min 34 s ");
  r.step = 2000;
  r.sol = 0;
  r.skipped = true;
  EXPECT_EQ(step_line(r, 2000, 0),
            " 2000/2000   10.8249      12.3  3.00e-06    12.3 k      -  0 s          skipped");
  EXPECT_EQ(step_line(r, 1234567, 0).find("10.8249"), step_heading(1234567).find("   loss"));
}

TEST(StepLine, the_time_left_follows_the_recent_steps) {
  TimeLeft left;
  EXPECT_DOUBLE_EQ(left.after_step(1, 11, 2), 20);
  EXPECT_DOUBLE_EQ(left.after_step(2, 11, 2), 18);
  double seconds = 0;
  for (int step = 3; step <= 100; ++step) seconds = left.after_step(step, 200, 1);
  EXPECT_NEAR(seconds, 100, 1);
  EXPECT_EQ(left.after_step(200, 200, 1), 0);
}

TEST_F(Metrics, the_log_of_a_rank_goes_on_in_its_file) {
  const std::string path = root_ + "/rank-0.log";
  for (const char* line : {"first", "second"}) Log(path, false).info(line);
  const std::string text = read_text(path);
  EXPECT_NE(text.find("info first\n"), std::string::npos) << text;
  EXPECT_LT(text.find("first"), text.find("second"));
}

TEST_F(Metrics, the_screen_shows_lines_as_they_are_and_marks_warnings) {
  testing::internal::CaptureStdout();
  testing::internal::CaptureStderr();
  const Log log(root_ + "/rank-0.log", true);
  log.info("a line");
  log.warn("beware");
  EXPECT_EQ(testing::internal::GetCapturedStdout(), "a line\n");
  EXPECT_EQ(testing::internal::GetCapturedStderr(), "warning: beware\n");
}

TEST_F(Metrics, a_log_that_cannot_be_opened_is_an_error_of_the_user) {
  write_text_atomically(path_, "");
  EXPECT_THROW(Log(path_ + "/rank-0.log", false), UserError);
}

TEST_F(Metrics, a_pipe_in_place_of_a_log_or_of_metrics_is_refused_by_name) {
  ASSERT_EQ(mkfifo(path_.c_str(), 0600), 0);
  EXPECT_THROW(Log(path_, false), UserError);
  try {
    const MetricsFile opened(path_, 0);
    FAIL();
  } catch (const UserError& error) {
    EXPECT_NE(std::string(error.what()).find(path_ + ": it is a pipe"), std::string::npos) << error.what();
  }
}

// As mpirun's, which reads no more once it was asked to end, while its ranks still save.
TEST_F(Metrics, a_screen_that_takes_no_more_stops_no_log) {
  std::array<int, 2> ends{};
  ASSERT_EQ(pipe(ends.data()), 0);
  const int screen = dup(STDOUT_FILENO);
  dup2(ends[1], STDOUT_FILENO);
  const Log log(root_ + "/rank-0.log", true);
  const std::string line(99, 'x');
  for (int i = 0; i < 2000; ++i) log.info(line);
  dup2(screen, STDOUT_FILENO);
  for (const int end : {screen, ends[1]}) close(end);
  std::string read(100, ' ');
  EXPECT_EQ(::read(ends[0], read.data(), read.size()), 100);
  EXPECT_EQ(read, line + "\n");
  close(ends[0]);
  const std::string kept = read_text(root_ + "/rank-0.log");
  EXPECT_EQ(std::count(kept.begin(), kept.end(), '\n'), 2000);
}

TEST_F(Metrics, a_screen_that_is_gone_stops_no_log) {
  const auto before = std::signal(SIGPIPE, SIG_IGN);
  std::array<int, 2> ends{};
  ASSERT_EQ(pipe(ends.data()), 0);
  const int screen = dup(STDOUT_FILENO);
  dup2(ends[1], STDOUT_FILENO);
  for (const int end : ends) close(end);
  const Log log(root_ + "/rank-0.log", true);
  for (const char* line : {"first", "second"}) log.info(line);
  dup2(screen, STDOUT_FILENO);
  close(screen);
  std::signal(SIGPIPE, before);
  EXPECT_NE(read_text(root_ + "/rank-0.log").find("second"), std::string::npos);
}

}  // namespace
}  // namespace muster
