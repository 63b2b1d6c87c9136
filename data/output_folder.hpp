// The folder of a dataset that is being made: new, empty, or left by a prepare that was killed.
//
// A file in it, prepare.partial, says that it is unfinished, and is locked as long as its prepare lives. So what was
// left is known from what another is writing, on any host whose file system has locks.
#pragma once

#include <functional>
#include <string>

#include "core/file.hpp"

namespace muster {

class OutputFolder {
 public:
  // UserError if the folder is not free. What a killed prepare left is removed, and told.
  OutputFolder(const std::string& path, const std::function<void(const std::string&)>& tell);
  OutputFolder(const OutputFolder&) = delete;
  OutputFolder& operator=(const OutputFolder&) = delete;
  // Removes what was made, unless it is kept.
  ~OutputFolder();

  void keep();

 private:
  void claim(bool& was_there);

  std::string path_;
  File claim_;
  bool made_ = false, kept_ = false;
};

}  // namespace muster
