// The folder of checkpoints: what is listed, what is kept, what is removed.
#include <unistd.h>

#include "tests/trainer/checkpoint/samples.hpp"
#include "trainer/commands/checkpoint.hpp"
#include "trainer/run_folder.hpp"

namespace muster {
namespace {

using namespace checkpoint_samples;
using Names = std::vector<std::string>;

void ignore(const std::string&) {}

TEST(CheckpointFolder, a_missing_or_empty_folder_holds_nothing) {
  const TemporaryFolder folder;
  EXPECT_TRUE(list_checkpoints(folder.path()).empty());
  EXPECT_TRUE(list_checkpoints(folder.path() + "/none").empty());
  EXPECT_EQ(newest_complete(folder.path() + "/none", Trust::full, ignore), std::nullopt);
  keep_newest(folder.path() + "/none", 1, 1, ignore);
}

TEST(CheckpointFolder, what_is_no_folder_is_an_error_on_all_ranks) {
  const TemporaryFolder folder;
  overwrite(folder.path() + "/file", "text");
  std::atomic<int> refused = 0;
  run_ranks(2, [&](Communicator& comm) {
    message_of([&] { newest_complete(comm, folder.path() + "/file", Trust::sizes, ignore); });
    ++refused;
  });
  EXPECT_EQ(refused, 2);
}

TEST(CheckpointFolder, the_list_tells_of_each_whether_it_is_whole) {
  const TemporaryFolder folder;
  save(folder.path(), 2, 100, 4);
  save(folder.path(), 1, 99);
  std::filesystem::create_directory(partial_path(folder.path(), 101, 5));
  std::filesystem::create_directory(folder.path() + "/step-00000098.removing");
  std::filesystem::create_directory(folder.path() + "/step-7");          // none of ours
  std::filesystem::create_directory(folder.path() + "/step-00000007x");  // neither
  overwrite(folder.path() + "/notes.txt", "mine");
  const auto list = list_checkpoints(folder.path());
  ASSERT_EQ(list.size(), 4u);
  EXPECT_EQ(list[0].step, 98);
  EXPECT_FALSE(list[0].complete);
  EXPECT_EQ(list[1].step, 99);
  EXPECT_TRUE(list[1].complete);
  EXPECT_EQ(list[2].step, 100);
  EXPECT_TRUE(list[2].complete);
  EXPECT_EQ(list[2].attempt, 4);
  EXPECT_EQ(list[2].files, 2u);
  EXPECT_EQ(list[2].bytes, std::filesystem::file_size(list[2].path + "/rank-00000.h5") +
                               std::filesystem::file_size(list[2].path + "/rank-00001.h5"));
  EXPECT_EQ(list[2].saved.size(), std::string("2026-01-01T00:00:00Z").size());
  EXPECT_EQ(list[3].step, 101);
  EXPECT_EQ(list[3].attempt, 5);
  EXPECT_FALSE(list[3].complete);
  EXPECT_FALSE(list[3].problem.empty());
}

TEST(CheckpointFolder, steps_beyond_eight_digits_are_found) {
  const TemporaryFolder folder;
  save(folder.path(), 1, 99999999);
  save(folder.path(), 1, 100000000);
  EXPECT_EQ(newest_complete(folder.path(), Trust::full, ignore), 100000000);
}

// Whoever looks while a run saves and removes is not told of what vanished, and finds what came.
TEST(CheckpointFolder, the_newest_is_found_though_those_listed_are_removed_meanwhile) {
  const TemporaryFolder folder;
  save(folder.path(), 1, 2);
  std::filesystem::create_directory(partial_path(folder.path(), 4, 1));
  std::vector<std::string> told;
  const auto meanwhile = [&](const std::string& line) {
    told.push_back(line);
    if (told.size() > 1) return;
    save(folder.path(), 1, 5);
    std::filesystem::remove_all(checkpoint_path(folder.path(), 2));
  };
  EXPECT_EQ(newest_complete(folder.path(), Trust::sizes, meanwhile), 5);
  EXPECT_EQ(told.size(), 1u) << told.back();
}

TEST(CheckpointFolder, a_copy_under_another_name_is_told_and_passed_over) {
  const TemporaryFolder folder;
  save(folder.path(), 1, 60);
  save(folder.path(), 1, 52);
  for (const char* name : {"step-00000099", "step-000000061"})
    std::filesystem::copy(checkpoint_path(folder.path(), 52), folder.path() + "/" + name);
  std::filesystem::rename(checkpoint_path(folder.path(), 52), folder.path() + "/step-000000052");
  std::vector<std::string> warnings;
  EXPECT_EQ(newest_complete(folder.path(), Trust::sizes,
                            [&](const std::string& line) { warnings.push_back(line); }),
            60);
  ASSERT_EQ(warnings.size(), 2u);
  EXPECT_NE(
      warnings[0].find("step-00000099: it holds step 52 under another name: rename it to step-00000052"),
      std::string::npos)
      << warnings[0];
  EXPECT_NE(message_of([&] { Checkpoint::open(folder.path() + "/step-00000099"); }).find("holds step 52"),
            std::string::npos);
  keep_newest(folder.path(), 1, 1, ignore);
  EXPECT_EQ(names_in(folder.path()).size(), 4u) << "what is not understood is left alone";
}

TEST(CheckpointFolder, a_number_that_no_attempt_has_is_none_of_ours) {
  const TemporaryFolder folder;
  save(folder.path(), 1, 5);
  std::filesystem::create_directory(folder.path() + "/step-00000006.partial-9223372036854775807");
  EXPECT_EQ(list_checkpoints(folder.path()).size(), 1u);
}

TEST(CheckpointFolder, the_latest_are_kept_and_older_ones_go) {
  const TemporaryFolder folder;
  for (const int step : {1, 2, 3, 4}) save(folder.path(), 1, step);
  keep_newest(folder.path(), 0, 1, ignore);
  EXPECT_EQ(names_in(folder.path()).size(), 4u);
  keep_newest(folder.path(), 2, 1, ignore);
  EXPECT_EQ(names_in(folder.path()), (Names{"step-00000003", "step-00000004"}));
  keep_newest(folder.path(), 1, 1, ignore);
  keep_newest(folder.path(), 1, 1, ignore);
  EXPECT_EQ(names_in(folder.path()), Names{"step-00000004"});
}

TEST(CheckpointFolder, a_damaged_checkpoint_does_not_count_as_one_that_is_kept) {
  const TemporaryFolder folder;
  for (const int step : {1, 2, 3}) save(folder.path(), 1, step);
  std::filesystem::remove(checkpoint_path(folder.path(), 3) + "/manifest.json");
  keep_newest(folder.path(), 1, 1, ignore);
  EXPECT_EQ(newest_complete(folder.path(), Trust::full, ignore), 2);
}

TEST(CheckpointFolder, an_attempt_that_went_back_keeps_its_own) {
  // Step 100 was altered, so the second attempt began at 50; its 75 is what the run stands on.
  const TemporaryFolder folder;
  save(folder.path(), 1, 50, 1);
  save(folder.path(), 1, 100, 1);
  save(folder.path(), 1, 75, 2);
  keep_newest(folder.path(), 1, 2, ignore);
  EXPECT_EQ(names_in(folder.path()), Names{"step-00000075"});
}

TEST(CheckpointFolder, one_that_is_not_there_is_told_from_one_that_is_broken) {
  const TemporaryFolder folder;
  save(folder.path(), 1, 1);
  const std::string one = checkpoint_path(folder.path(), 1);
  EXPECT_NE(message_of([&] {
              Checkpoint::open(checkpoint_path(folder.path(), 999));
            }).find("there is no " + checkpoint_path(folder.path(), 999)),
            std::string::npos);
  std::filesystem::rename(one + "/manifest.json", one + "/kept");
  EXPECT_NE(message_of([&] { Checkpoint::open(one); }).find("was never finished"), std::string::npos);
  std::filesystem::create_directory(one + "/manifest.json");
  const std::string message = message_of([&] { Checkpoint::open(one); });
  EXPECT_NE(message.find("cannot read"), std::string::npos) << message;
  EXPECT_EQ(message.find("remove"), std::string::npos) << message;
}

TEST(CheckpointFolder, one_that_cannot_be_removed_stays_and_is_told) {
  const TemporaryFolder folder;
  for (const int step : {1, 2, 3}) save(folder.path(), 1, step);
  const std::string kept = checkpoint_path(folder.path(), 1);
  using std::filesystem::perms;
  std::filesystem::permissions(folder.path(), perms::all);
  for (const auto& entry : std::filesystem::recursive_directory_iterator(folder.path()))
    std::filesystem::permissions(entry.path(), perms::all);
  std::filesystem::permissions(kept,
                               perms::all & ~(perms::owner_write | perms::group_write | perms::others_write));
  const bool root = geteuid() == 0;  // whom permissions do not stop
  ASSERT_EQ(root ? seteuid(65534) : 0, 0);
  std::vector<std::string> warnings;
  keep_newest(folder.path(), 1, 1, [&](const std::string& line) { warnings.push_back(line); });
  ASSERT_EQ(root ? seteuid(0) : 0, 0);
  ASSERT_EQ(warnings.size(), 1u);
  EXPECT_NE(warnings[0].find(kept), std::string::npos) << warnings[0];
  EXPECT_EQ(newest_complete(folder.path(), Trust::full, ignore), 3);
  EXPECT_TRUE(std::filesystem::exists(kept));
  std::filesystem::permissions(kept, perms::all);
  keep_newest(folder.path(), 1, 1, ignore);
  EXPECT_EQ(names_in(folder.path()), Names{"step-00000003"});
}

TEST(CheckpointFolder, what_earlier_attempts_left_goes_and_what_is_being_written_stays) {
  const TemporaryFolder folder;
  save(folder.path(), 1, 5, 1);
  for (const int attempt : {1, 2, 3}) {
    std::filesystem::create_directory(partial_path(folder.path(), 6, attempt));
    overwrite(partial_path(folder.path(), 6, attempt) + "/rank-00000.h5", "half");
  }
  std::filesystem::create_directory(folder.path() + "/step-00000004.removing");
  std::filesystem::create_directory(replaced_path(folder.path(), 5, 2));
  overwrite(folder.path() + "/notes.txt", "mine");
  keep_newest(folder.path(), 3, 2, ignore);
  EXPECT_EQ(names_in(folder.path()),
            (Names{"notes.txt", "step-00000005", "step-00000006.partial-2", "step-00000006.partial-3"}));
}

TEST(CheckpointFolder, leftovers_go_before_a_save_asks_for_room_and_count_as_room_before_that) {
  const TemporaryFolder folder;
  for (const int step : {1, 2, 3, 4}) save(folder.path(), 1, step);
  const std::string dead = partial_path(folder.path(), 5, 1),
                    dying = folder.path() + "/step-00000001.removing";
  std::filesystem::rename(checkpoint_path(folder.path(), 1), dying);
  std::filesystem::create_directory(dead);
  overwrite(dead + "/rank-00000.h5", std::string(1000000, 'x'));

  const std::uint64_t one = list_checkpoints(folder.path())[1].bytes;
  const std::uint64_t room = removable_bytes(folder.path(), 2);
  EXPECT_GT(room, 1000000 + 2 * one) << "the two leftovers, and one checkpoint more than is kept";
  EXPECT_LT(room, 1000000 + 3 * one);
  EXPECT_LT(removable_bytes(folder.path(), 0), 1000000 + 2 * one) << "0 keeps all";
  const std::string told = describe_leftovers(folder.path(), 2);
  EXPECT_NE(told.find(dead + " (976.56 KiB)"), std::string::npos) << told;
  EXPECT_NE(told.find(dying), std::string::npos) << told;
  EXPECT_EQ(describe_leftovers(folder.path(), 1).find(dead), std::string::npos) << "it may be writing it";

  const std::uint64_t too_much = std::uint64_t{1} << 60;
  EXPECT_NE(message_of([&] { check_room(folder.path(), too_much, 2); }).find(dead), std::string::npos);
  EXPECT_NO_THROW(check_room(folder.path(), too_much, 2, too_much));

  int beats = 0;
  remove_leftovers(folder.path(), 2, ignore, [&] { ++beats; });
  EXPECT_GE(beats, 2);
  EXPECT_EQ(names_in(folder.path()), (Names{"step-00000002", "step-00000003", "step-00000004"}));
  EXPECT_EQ(describe_leftovers(folder.path(), 2), "");
  EXPECT_EQ(message_of([&] { check_room(folder.path(), too_much, 2); }).find("partial"), std::string::npos);
}

TEST(CheckpointFolder, a_save_removes_what_earlier_attempts_left) {
  const TemporaryFolder folder;
  for (const int attempt : {1, 2, 3})
    std::filesystem::create_directory(partial_path(folder.path(), 6, attempt));
  save(folder.path(), 2, 5, 3);
  EXPECT_EQ(names_in(folder.path()), (Names{"step-00000005", "step-00000006.partial-3"}));
}

TEST(CheckpointFolder, the_commands_show_what_is_there_and_refuse_what_is_damaged) {
  const TemporaryFolder run;
  const std::string folder = run.path() + "/checkpoints";
  EXPECT_THROW(checkpoint_list_command(run.path()), UserError) << "not a run's folder";
  RunFolder(run.path()).create();
  overwrite(RunFolder(run.path()).config(), "");
  save(folder, 2, 10);
  save(folder, 2, 20);
  std::filesystem::create_directory(partial_path(folder, 30, 2));

  testing::internal::CaptureStdout();
  EXPECT_EQ(checkpoint_list_command(run.path()), 0);
  EXPECT_EQ(checkpoint_verify_command(run.path(), std::nullopt), 0);
  const std::string sound = testing::internal::GetCapturedStdout();
  EXPECT_NE(sound.find("complete\n"), std::string::npos) << sound;
  EXPECT_NE(sound.find("it was never finished\n"), std::string::npos) << sound;
  EXPECT_NE(sound.find("step-00000020: intact"), std::string::npos) << sound;

  std::filesystem::resize_file(checkpoint_path(folder, 20) + "/rank-00001.h5", 100);
  testing::internal::CaptureStdout();
  const std::string message = message_of([&] { checkpoint_verify_command(run.path(), std::nullopt); });
  EXPECT_EQ(checkpoint_verify_command(run.path(), 10), 0);
  const std::string damaged = testing::internal::GetCapturedStdout();
  EXPECT_NE(message.find("rank-00001.h5"), std::string::npos) << message;
  EXPECT_NE(damaged.find("step-00000010: intact"), std::string::npos) << damaged;
  EXPECT_NE(damaged.find("step-00000020: damaged"), std::string::npos) << damaged;
  EXPECT_THROW(checkpoint_verify_command(run.path(), 11), UserError);
}

TEST(CheckpointFolder, a_checkpoint_of_the_first_format_still_loads) {
  // Written by the first version of the format; never written anew.
  const std::string stored = "tests/trainer/fixtures/checkpoint-format-1";
  ASSERT_EQ(newest_complete(stored, Trust::full, ignore), 42);
  expect_holds_step(Checkpoint::open(checkpoint_path(stored, 42), Trust::full), 42, 3);
}

}  // namespace
}  // namespace muster
