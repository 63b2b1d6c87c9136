// Saving and loading: every bit, on any number of ranks; names that are never taken twice; failures that all
// ranks see alike and that leave nothing behind.
#include <csignal>
#include <mutex>
#include <sched.h>
#include <set>
#include <sstream>
#include <sys/mount.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include "core/hdf5.hpp"
#include "tests/trainer/checkpoint/samples.hpp"

namespace muster {
namespace {

using namespace checkpoint_samples;

TEST(Checkpoint, saved_on_any_number_of_ranks_is_read_on_any_other_bit_for_bit) {
  for (const int writers : {1, 2, 3, 4}) {
    const TemporaryFolder folder;
    save(folder.path(), writers, 100);
    const Checkpoint checkpoint = Checkpoint::open(checkpoint_path(folder.path(), 100));
    for (const int readers : {1, 2, 3, 4, 5}) expect_holds_step(checkpoint, 100, readers);
  }
}

TEST(Checkpoint, any_range_of_a_tensor_is_read_across_the_pieces_of_the_ranks) {
  const TemporaryFolder folder;
  save(folder.path(), 3, 7);
  const Checkpoint checkpoint = Checkpoint::open(checkpoint_path(folder.path(), 7));
  const Tensor tensor = tensors().front();
  for (std::int64_t begin = 0; begin <= tensor.count(); begin += 13)
    for (std::int64_t end = begin; end <= tensor.count(); end += 29) {
      std::vector<float> values(static_cast<std::size_t>(end - begin));
      checkpoint.read(tensor.name, begin, end, values);
      for (std::int64_t i = begin; i < end; ++i)
        ASSERT_EQ(std::bit_cast<std::uint32_t>(values[static_cast<std::size_t>(i - begin)]),
                  std::bit_cast<std::uint32_t>(tensor.value(i, 7)));
    }
}

TEST(Checkpoint, a_ranks_file_is_plain_hdf5_that_tells_its_ranges) {
  const TemporaryFolder folder;
  save(folder.path(), 1, 1);
  const H5File file = H5File::open_to_read(checkpoint_path(folder.path(), 1) + "/rank-00000.h5");
  for (const Tensor& tensor : tensors()) {
    const H5Dataset dataset = file.dataset(tensor.name);
    ASSERT_EQ(dataset.length(), static_cast<std::uint64_t>(tensor.count()));
    std::vector<float> values(dataset.length());
    dataset.read<float>(0, values);
    for (std::int64_t i = 0; i < tensor.count(); ++i)
      ASSERT_EQ(std::bit_cast<std::uint32_t>(values[static_cast<std::size_t>(i)]),
                std::bit_cast<std::uint32_t>(tensor.value(i, 1)));
  }
}

TEST(Checkpoint, the_state_comes_back_as_it_was_given) {
  const TemporaryFolder folder;
  save(folder.path(), 2, 3);
  EXPECT_EQ(Checkpoint::open(checkpoint_path(folder.path(), 3)).state(), state_of(3));
}

TEST(Checkpoint, a_missing_tensor_and_another_shape_are_told_as_of_another_model) {
  const TemporaryFolder folder;
  save(folder.path(), 2, 3);
  const Checkpoint checkpoint = Checkpoint::open(checkpoint_path(folder.path(), 3));
  const std::string missing = message_of([&] { checkpoint.require("master/lost", {3}); });
  EXPECT_NE(missing.find("is of another model"), std::string::npos) << missing;
  EXPECT_NE(missing.find("master/lost"), std::string::npos) << missing;
  const std::string other = message_of([&] { checkpoint.require("master/embedding.weight", {17, 29}); });
  EXPECT_NE(other.find("is of another model"), std::string::npos) << other;
  EXPECT_NE(other.find("[29, 17] there and [17, 29] here"), std::string::npos) << other;
}

TEST(Checkpoint, pieces_that_do_not_cover_a_tensor_are_a_defect_and_leave_nothing) {
  const TemporaryFolder folder;
  EXPECT_ANY_THROW(run_ranks(2, [&](Communicator& comm) {
    Owned mine = owned(comm.rank(), comm.size(), 1);
    if (comm.rank() == 1) mine.slices.erase(mine.slices.begin());
    CheckpointRequest request;
    request.folder = folder.path();
    request.step = 1;
    save_checkpoint(comm, request, mine.slices);
  }));
  EXPECT_TRUE(names_in(folder.path()).empty());
}

TEST(Checkpoint, one_of_the_same_attempt_is_never_overwritten) {
  const TemporaryFolder folder;
  save(folder.path(), 2, 5, 3);
  const std::string before = bytes_of(checkpoint_path(folder.path(), 5) + "/manifest.json");
  for (const std::int64_t attempt : {2, 3}) {
    const std::string message = message_of([&] { save(folder.path(), 3, 5, attempt); });
    EXPECT_NE(message.find("exists already"), std::string::npos) << message;
  }
  EXPECT_EQ(bytes_of(checkpoint_path(folder.path(), 5) + "/manifest.json"), before);
  EXPECT_EQ(names_in(folder.path()), std::vector<std::string>{"step-00000005"});
}

TEST(Checkpoint, what_an_earlier_attempt_left_under_the_name_is_set_aside) {
  const TemporaryFolder folder;
  save(folder.path(), 2, 5, 1);
  std::filesystem::resize_file(checkpoint_path(folder.path(), 5) + "/manifest.json", 40);
  save(folder.path(), 2, 5, 2);
  expect_holds_step(Checkpoint::open(checkpoint_path(folder.path(), 5)), 5);
  EXPECT_EQ(names_in(folder.path()), (std::vector<std::string>{"step-00000005", "step-00000005.replaced-2"}));
}

TEST(Checkpoint, an_older_attempt_gives_nothing_its_final_name_once_a_newer_one_is_there) {
  // The newer attempt appears before the save, or after the files were written.
  for (const int first_refusal : {1, 2}) {
    const TemporaryFolder folder;
    int asked = 0;
    std::mutex mutex;
    std::multiset<std::string> messages;
    run_ranks(3, [&](Communicator& comm) {
      const Owned mine = owned(comm.rank(), comm.size(), 5);
      CheckpointRequest request;
      request.folder = folder.path();
      request.step = 5;
      request.attempt = 1;
      request.check_current = [&] {
        if (++asked >= first_refusal) throw UserError("a newer attempt");
      };
      const std::string message = message_of([&] { save_checkpoint(comm, request, mine.slices); });
      const std::lock_guard lock(mutex);
      messages.insert(message);
    });
    EXPECT_EQ(messages.count(*messages.begin()), 3u);
    EXPECT_NE(messages.begin()->find("newer attempt"), std::string::npos) << *messages.begin();
    EXPECT_TRUE(names_in(folder.path()).empty());
  }
}

// Saves on three ranks in a child process, where a limit can be set for it alone. One line for the message
// of each rank, then the names that the child leaves in the folder.
std::vector<std::string> saved_by_child(const std::string& folder, const std::function<bool()>& set_limit) {
  int ends[2];
  check(pipe(ends) == 0, "no pipe");
  const pid_t child = fork();
  check(child >= 0, "no child");
  if (child == 0) {
    if (!set_limit()) _exit(3);
    std::mutex mutex;
    std::string report;
    run_ranks(3, [&](Communicator& comm) {
      std::string message = "saved";
      try {
        save_one(comm, folder, 2);
      } catch (const UserError& error) {
        message = error.what();
      }
      const std::lock_guard lock(mutex);
      report += message + "\n";
    });
    for (const std::string& name : names_in(folder)) report += name + "\n";
    const bool told = write(ends[1], report.data(), report.size()) == static_cast<ssize_t>(report.size());
    _exit(told ? 0 : 1);
  }
  close(ends[1]);
  std::string report;
  for (char c; read(ends[0], &c, 1) == 1;) report += c;
  close(ends[0]);
  int status = 0;
  waitpid(child, &status, 0);
  std::vector<std::string> lines;
  if (WIFEXITED(status) && WEXITSTATUS(status) == 3) return lines;  // the limit could not be set
  EXPECT_TRUE(WIFEXITED(status) && WEXITSTATUS(status) == 0) << status;
  std::istringstream in(report);
  for (std::string line; std::getline(in, line);) lines.push_back(line);
  return lines;
}

TEST(Checkpoint, a_file_that_cannot_grow_is_one_error_on_all_ranks_and_leaves_nothing) {
  const TemporaryFolder folder;
  save(folder.path(), 3, 1);
  for (const rlim_t limit : {0, 1, 1000, 4096, 6000}) {  // structure and values are cut at different places
    const auto lines = saved_by_child(folder.path(), [&] {
      const rlimit most{limit, RLIM_INFINITY};
      return signal(SIGXFSZ, SIG_IGN) != SIG_ERR && setrlimit(RLIMIT_FSIZE, &most) == 0;
    });
    ASSERT_EQ(lines.size(), 4u);
    for (const std::size_t rank : {0, 1, 2}) EXPECT_EQ(lines[rank], lines[0]);
    EXPECT_NE(lines[0].find("File too large"), std::string::npos) << lines[0];
    EXPECT_EQ(lines[3], "step-00000001");
  }
  expect_holds_step(Checkpoint::open(checkpoint_path(folder.path(), 1)), 1);
}

TEST(Checkpoint, a_full_disk_is_one_error_on_all_ranks_and_leaves_nothing) {
  for (const char* size : {"size=8k", "size=28k", "size=40k"}) {  // full in the structure and in the values
    const TemporaryFolder folder;
    const auto lines = saved_by_child(folder.path(), [&] {  // a small disk that only the child sees
      return unshare(geteuid() == 0 ? CLONE_NEWNS : CLONE_NEWUSER | CLONE_NEWNS) == 0 &&
             mount("none", "/", nullptr, MS_REC | MS_PRIVATE, nullptr) == 0 &&
             mount("none", folder.path().c_str(), "tmpfs", 0, size) == 0;
    });
    if (lines.empty()) GTEST_SKIP() << "this system lets nobody mount a small disk";
    ASSERT_EQ(lines.size(), 3u) << "something stayed behind: " << lines.back();
    for (const std::string& line : lines) EXPECT_EQ(line, lines[0]);
    EXPECT_NE(lines[0].find("free space on that disk"), std::string::npos) << lines[0];
    EXPECT_NE(lines[0].find(folder.path()), std::string::npos) << lines[0];
  }
}

}  // namespace
}  // namespace muster
