# What MUSTER_CUDA says, in small letters; another word than these four would be taken for one of them further on.
string(TOLOWER "${MUSTER_CUDA}" MUSTER_CUDA)
if(NOT MUSTER_CUDA MATCHES "^(auto|on|off|host)$")
  message(FATAL_ERROR "MUSTER_CUDA is ${MUSTER_CUDA}: choose auto, on, off or host, as cmake -DMUSTER_CUDA=off")
endif()
