// Words of channels between stages.
#pragma once

#include <hls_stream.h>

template <typename Element, int count> struct Word {
    Element at[count];
};
