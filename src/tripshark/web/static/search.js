// Hits are walked through with j and k.

import { walk } from "./keys.js";

walk(".hit tbody tr");
