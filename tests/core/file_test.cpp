#include "core/file.hpp"

#include <filesystem>
#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include "core/host.hpp"

namespace muster {
namespace {

TEST(AtomicWrite, removes_what_a_killed_writer_of_this_container_left_and_nothing_else) {
  const std::string folder = ::testing::TempDir() + "muster-file-" + std::to_string(getpid());
  std::filesystem::create_directories(folder);
  const pid_t dead = fork();
  if (dead == 0) _exit(0);
  waitpid(dead, nullptr, 0);
  const pid_t unnoticed = fork();
  if (unnoticed == 0) _exit(0);
  siginfo_t ended{};
  waitid(P_PID, static_cast<id_t>(unnoticed), &ended, WEXITED | WNOWAIT);
  const std::string space = std::to_string(pid_namespace()), path = folder + "/a.json",
                    ours = path + ".partial-" + host_name() + "-" + space + "-";
  const std::vector<std::string> kept = {
      ours + std::to_string(getppid()), ours + "mine",
      path + ".partial-elsewhere-" + space + "-" + std::to_string(dead),
      path + ".partial-" + host_name() + "-1-" + std::to_string(dead),
      folder + "/b.json.partial-" + host_name() + "-" + space + "-" + std::to_string(dead)};
  for (const std::string& file : kept) File::create(file);
  for (const pid_t writer : {dead, unnoticed}) File::create(ours + std::to_string(writer));
  write_text_atomically(path, "text");
  EXPECT_EQ(read_text(path), "text");
  for (const pid_t writer : {dead, unnoticed})
    EXPECT_FALSE(std::filesystem::exists(ours + std::to_string(writer))) << writer;
  waitpid(unnoticed, nullptr, 0);
  for (const std::string& file : kept) EXPECT_TRUE(std::filesystem::exists(file)) << file;
  std::filesystem::remove_all(folder);
}

}  // namespace
}  // namespace muster
