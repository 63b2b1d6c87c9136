# Writes FILE, which tells what the tree ROOT was when the program was built; only if it changed, so that nothing else is
# compiled again. Without git, or in a source archive, that is nothing.
get_filename_component(parent ${ROOT} DIRECTORY)
set(ENV{GIT_CEILING_DIRECTORIES} ${parent})  # an archive unpacked inside another repository is not that repository's
execute_process(COMMAND git -C ${ROOT} describe --always --dirty --exclude * --abbrev=12
                OUTPUT_VARIABLE commit RESULT_VARIABLE failed ERROR_QUIET OUTPUT_STRIP_TRAILING_WHITESPACE)
if(NOT failed EQUAL 0)
  set(commit "")
endif()
# Of fixed length, so that the rest of the program is the same whatever it says (trainer/build_info.cpp).
set(text "#include \"trainer/build_info.hpp\"\n\nconst std::array<char, 32> muster::commit_text{\"${commit}\"};\n")
set(before)
if(EXISTS ${FILE})
  file(READ ${FILE} before)
endif()
if(NOT text STREQUAL before)
  file(WRITE ${FILE} "${text}")
endif()
