# cmake --install build/release --prefix DIR: the program, configurations, and the scripts that need no source tree.
include(GNUInstallDirs)
install(TARGETS muster)
install(DIRECTORY configs DESTINATION ${CMAKE_INSTALL_DATADIR}/muster)
install(PROGRAMS launch/doctor launch/plot launch/plot-scaling launch/train.sbatch
        DESTINATION ${CMAKE_INSTALL_DATADIR}/muster/launch)
install(FILES LICENSE DESTINATION ${CMAKE_INSTALL_DOCDIR})
