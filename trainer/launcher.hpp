// What launchers (mpirun, srun) tell the processes that they start, by variables of the environment.
#pragma once

#include <optional>
#include <string>

namespace muster {

// Which of the processes that a launcher started this one is; nothing without a launcher.
std::optional<int> launched_rank();

// Whether this process is the first of them: all have the same command line, so it speaks for them.
bool speaks_for_all_ranks();

// Whether this process is to do the work of a command for one process, which several would do over each other. The second
// says that the others leave it alone.
bool works_alone(const char* command);

class Launcher {
 public:
  // Reads the environment; to be made before MPI is started, which adds variables of its own.
  Launcher();

  // Throws UserError, told by the first process alone, where the launcher started several and MPI knows of one rank: it
  // is not the launcher that MPI speaks to, and each process would be a run of its own, all in the same folder.
  void refuse_if_foreign(int ranks) const;

 private:
  bool speaks_;
  std::string variable_;  // that tells the number of processes; empty: there is none
  int processes_ = 1;
};

}  // namespace muster
