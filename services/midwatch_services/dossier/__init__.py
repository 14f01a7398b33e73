"""Why a run went as it did: all that is known of it, for whoever has to answer for it; changes nothing."""
